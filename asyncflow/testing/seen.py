"""How often a request came before: a count whose memory is bounded."""

from __future__ import annotations


class Seen:
    """Counts what comes, by digest.

    Counts live in two generations: when the newer one is full it becomes the older, and what was in the older
    and has not come again is forgotten. So at least the newest `remembered` different ones are known, and at
    most twice as many.

    Args:
        remembered: Different ones, at least.

    Example:
        >>> seen = Seen(1000)
        >>> seen.count(b"a"), seen.count(b"b"), seen.count(b"a")
        (0, 0, 1)
    """

    def __init__(self, remembered: int) -> None:
        self._remembered = remembered
        self._new: dict[bytes, int] = {}
        self._old: dict[bytes, int] = {}

    def count(self, digest: bytes) -> int:
        """How often it came before; now it came once more."""
        before = self._new.get(digest)
        if before is None:
            before = self._old.get(digest, 0)
            if len(self._new) >= self._remembered:
                self._old, self._new = self._new, {}
        self._new[digest] = before + 1
        return before

    def __len__(self) -> int:
        return len(self._new) + len(self._old)
