"""How often has this digest come? For millions of them, in about 20 bytes each.

A dict of digests takes 170 bytes an entry. Here 64 bits of each are kept, in open addressing with linear
probing (Knuth, The Art of Computer Programming 3, section 6.4, algorithm L), in 256 small tables, so that
growing one of them takes a millisecond and never holds the event loop. Only repeated ones are in a dict.
"""

from __future__ import annotations

from array import array

#: Up to here one dict does it: most places are small.
_SMALL = 1024
_EMPTY = 0


class _Table:
    """A set of non-zero 64-bit integers."""

    __slots__ = ("_count", "_mask", "_slots")

    def __init__(self) -> None:
        self._count = 0
        self._mask = 15
        self._slots = array("Q", bytes(8 * 16))

    def add(self, value: int) -> bool:
        """Add it, and say whether it was new."""
        slots, mask = self._slots, self._mask
        at = (value >> 8) & mask  # the low byte is the same for a whole table
        while (found := slots[at]) != _EMPTY:
            if found == value:
                return False
            at = (at + 1) & mask
        slots[at] = value
        self._count += 1
        if self._count * 3 > mask * 2:
            self._grow()
        return True

    def _grow(self) -> None:
        before = self._slots
        mask = self._mask = self._mask * 2 + 1
        slots = self._slots = array("Q", bytes(8 * (mask + 1)))
        for value in before:
            if value != _EMPTY:
                at = (value >> 8) & mask
                while slots[at] != _EMPTY:
                    at = (at + 1) & mask
                slots[at] = value


class Seen:
    """Counts digests."""

    __slots__ = ("_counts", "_tables")

    def __init__(self) -> None:
        self._counts: dict[bytes, int] = {}
        self._tables: list[_Table] | None = None

    def add(self, digest: bytes) -> int:
        """The occurrence number of this digest, from 1."""
        if self._tables is None:
            count = self._counts[digest] = self._counts.get(digest, 0) + 1
            if len(self._counts) > _SMALL:
                self._spread()
            return count
        value = int.from_bytes(digest[:8], "little") or 1
        if self._tables[value & 255].add(value):
            return 1
        count = self._counts[digest] = self._counts.get(digest, 1) + 1
        return count

    def _spread(self) -> None:
        counts, self._counts = self._counts, {}
        self._tables = [_Table() for _ in range(256)]
        for digest, count in counts.items():
            value = int.from_bytes(digest[:8], "little") or 1
            self._tables[value & 255].add(value)
            if count > 1:
                self._counts[digest] = count
