"""A `Cache` in memory: the fake of the port that `LLMClient` keeps answers behind."""

from __future__ import annotations

from typing import Any


class MemoryCache:
    """Keeps everything in a dict, and counts.

    Attributes:
        values: What is kept, by key.
        hits, misses: How often something was found, and not.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.hits = self.misses = 0

    async def get(self, key: str) -> Any | None:
        """What was put under the key, or None."""
        found = self.values.get(key)
        self.hits += found is not None
        self.misses += found is None
        return found

    async def put(self, key: str, value: Any) -> None:
        """Keep a value; the last one put under a key counts."""
        self.values[key] = value
