"""Which items are in flight, told to whoever comes after a SIGKILL.

One slot of 32 bytes for an item whose `exec` runs, in a file mapped into memory: setting one is a store into
the page cache, which survives the process (not the machine: nothing is synced, and after a loss of power no
item is under suspicion). The header counts what was committed, so that a write-ahead log that somebody has
removed is noticed.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import NamedTuple, Protocol

_HEADER = struct.Struct("<8sQ")
_MAGIC = b"asyncmk1"
_SLOT = struct.Struct("<16sQII")
_EMPTY = bytes(_SLOT.size)
#: There was no room for a mark: the item is simply under no suspicion.
NO_SLOT = -1
#: Slots per mapped piece; a piece is a whole number of pages on every platform.
_SLOTS = 64 * 1024 // _SLOT.size


class Mark(NamedTuple):
    """An item that was in flight, in this session."""

    key: bytes
    place: int
    session: int
    attempt: int


class Marks(Protocol):
    """Marks of the items in flight, of all runs in this process."""

    def set(self, key: bytes, place: int, session: int) -> int:
        """Mark an item; returns the slot to clear."""

    def clear(self, slot: int) -> None: ...
    def flush(self) -> None:
        """Return when what was set and cleared survives this process. Where it does anyway, at once."""

    def committed(self, last: int) -> None:
        """The log is this long now."""


class NoMarks:
    """For stores that do not outlive the process."""

    def set(self, key: bytes, place: int, session: int) -> int:
        return 0

    def clear(self, slot: int) -> None:
        pass

    def flush(self) -> None:
        pass

    def committed(self, last: int) -> None:
        pass


class FileMarks:
    """Marks in a file beside the database. Made new by `create`, after `read` has told the old ones."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        _allocate(self._file, 0, mmap.ALLOCATIONGRANULARITY)
        self._header = mmap.mmap(self._file, mmap.ALLOCATIONGRANULARITY)
        self._pieces: list[mmap.mmap] = []
        self._free: list[int] = []
        _HEADER.pack_into(self._header, 0, _MAGIC, 0)

    def set(self, key: bytes, place: int, session: int) -> int:
        while True:
            try:
                slot = self._free.pop()
                break
            except IndexError:
                if not self._grow():
                    return NO_SLOT
        _SLOT.pack_into(self._pieces[slot // _SLOTS], slot % _SLOTS * _SLOT.size, key, place, session, 1)
        return slot

    def clear(self, slot: int) -> None:
        if slot == NO_SLOT:
            return
        at = slot % _SLOTS * _SLOT.size
        self._pieces[slot // _SLOTS][at : at + _SLOT.size] = _EMPTY
        self._free.append(slot)

    def flush(self) -> None:
        """A killed process's memory map is in the page cache."""

    def committed(self, last: int) -> None:
        _HEADER.pack_into(self._header, 0, _MAGIC, last)

    def remove(self) -> None:
        """Close and delete the file: nothing is in flight any more."""
        self.close()
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """No item has ended this process, so none stays marked; the count of what was committed stays."""
        file, self._file = self._file, -1
        for piece in self._pieces:
            piece[:] = bytes(len(piece))
        for piece in (self._header, *self._pieces):
            piece.close()
        os.close(file)

    def _grow(self) -> bool:
        size = _SLOTS * _SLOT.size
        offset = mmap.ALLOCATIONGRANULARITY + len(self._pieces) * size
        try:
            _allocate(self._file, offset, size)
        except OSError:
            return False
        first = len(self._pieces) * _SLOTS
        self._pieces.append(mmap.mmap(self._file, size, offset=offset))
        self._free.extend(range(first + _SLOTS - 1, first - 1, -1))
        return True


def _allocate(file: int, offset: int, size: int) -> None:
    """With its blocks: a store into a mapped hole of a full disk would end the process (SIGBUS)."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, offset, size)
    else:
        os.pwrite(file, bytes(size), offset)


def read(path: Path) -> tuple[int, list[Mark]]:
    """How long the log was, and what was in flight, when the process before this one ended."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return 0, []
    if len(data) < _HEADER.size:
        return 0, []
    magic, last = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        return 0, []
    body = data[mmap.ALLOCATIONGRANULARITY :]
    body = body[: len(body) // _SLOT.size * _SLOT.size]
    return last, [Mark(*fields) for fields in _SLOT.iter_unpack(body) if fields[3]]
