"""What every `Cache` promises that comes with asyncflow, over every implementation, on every loop."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

from asyncflow.durability import MemoryStore, ResponseCache
from asyncflow.llm import Cache
from asyncflow.testing import MemoryCache


@pytest.fixture(params=["fake", "memory", "sqlite", "postgres"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Cache:
    if request.param == "fake":
        return MemoryCache()
    if request.param == "memory":
        return ResponseCache(MemoryStore())
    postgres = request.param == "postgres"
    return ResponseCache(request.getfixturevalue("postgres_url") if postgres else tmp_path / "responses.db")


async def opened(stack: AsyncExitStack, cache: Any) -> Cache:
    return await stack.enter_async_context(cache) if isinstance(cache, ResponseCache) else cache


VALUES = [
    {"text": "é \\u0000 \n \x00 👍", "n": [1, 2.5, 1e300, None, True], "": {}},
    {"choices": [{"message": {"content": "x" * 200_000}}]},
    [],
    "text",
    0,
]


def test_what_is_put_is_found_at_once_and_equal(run: Any, cache: Any) -> None:
    """Any JSON but null comes back equal; what was never put is None; the last one under a key counts."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            kept = await opened(stack, cache)
            assert await kept.get("a") is None
            for n, value in enumerate(VALUES):
                await kept.put(f"key {n} é", value)
                assert await kept.get(f"key {n} é") == value
            await kept.put("key 0 é", "later")
            assert await kept.get("key 0 é") == "later"
            assert await kept.get("key 1 é") == VALUES[1]
            assert await kept.get("") is None

    run(main)


def test_many_at_once(run: Any, cache: Any) -> None:
    """Concurrent callers each get what is theirs, whoever of them is cancelled."""
    got: dict[int, Any] = {}

    async def main() -> None:
        async def ask(kept: Cache, n: int) -> None:
            if n % 3 == 0:
                await kept.put(f"{n}", {"n": n})
            with anyio.CancelScope() as scope:
                if n % 7 == 0:
                    scope.cancel()
                got[n] = await kept.get(f"{n}")

        async with AsyncExitStack() as stack:
            kept = await opened(stack, cache)
            async with anyio.create_task_group() as group:
                for n in range(700):
                    group.start_soon(ask, kept, n)

    run(main)
    assert all(n in got for n in range(700) if n % 7)
    assert all(value == ({"n": n} if n % 3 == 0 else None) for n, value in got.items())
