"""A file that is there whole or not at all: written beside its place, then renamed into it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def beside(path: Path) -> Path:
    """Where a file is written before it gets its name. One that is left there is of a process that died."""
    return path.with_name(f".{path.name}.new")


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file open for bytes, which gets its name when the block ends well; else nothing is left of it.

    Killed half-way, the block leaves `path` as it was, and a file `.NAME.new` that the next one writes over.

    Raises:
        OSError: If it cannot be written.
    """
    new = beside(path)
    try:
        with open(new, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # not every system can sync a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def check_writable(path: Path) -> None:
    """Make sure that a file of that name can be written, by writing an empty one beside it for a moment.

    Raises:
        OSError: If it cannot.
    """
    new = beside(path)
    with open(new, "ab"):
        pass
    new.unlink()
