"""A store opened for looking: which run is meant, and how does it stand? Nothing is locked or written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from asyncflow.cli.usage import UsageError
from asyncflow.durability import as_store, resolve, status
from asyncflow.durability.store import RunRow, Store, StoreReader
from asyncflow.errors import StoreMissingError

#: Where runs lie unless told otherwise.
DEFAULT = "runs.db"

_PASSWORD = re.compile(r"(?<=://)([^:/@]*):[^@/]*@")


@dataclass(frozen=True, slots=True)
class Opened:
    """A store and a reader of it.

    Attributes:
        name: The store as it was named, without a password.
    """

    name: str
    store: Store
    reader: StoreReader

    def runs(self) -> list[tuple[RunRow, str]]:
        """All runs, oldest first, each with its status (see `durability.runs.status`)."""
        runs = self.reader.runs()
        held = {run.id for run in runs if _open(run) and self.store.holder(run.id) is not None}
        if any(_open(run) and run.id not in held for run in runs):
            runs = self.reader.runs()  # it may have ended well between the two questions
        return [(run, status(run, held=run.id in held)) for run in runs]

    def run(self, text: str) -> tuple[RunRow, str]:
        """The run that is meant by its id, a unique beginning of it, or `@last`, with its status.

        Raises:
            UsageError: If none is, or several are.
        """
        runs = {run.id: (run, how) for run, how in self.runs()}
        try:
            return runs[resolve(text, list(runs))]
        except LookupError as exc:
            raise UsageError(f"{self.name}: {exc.args[0]}") from None


@contextmanager
def opened(text: str) -> Iterator[Opened]:
    """The store of that path or URL, for the block.

    Raises:
        UsageError: If there is none.
        StoreError: If it cannot be read.
    """
    store = as_store(text)
    try:
        reader = store.open_reader()
    except StoreMissingError as exc:
        raise UsageError(f"{exc}; where it lies is said by --store") from None
    try:
        yield Opened(without_password(text), store, reader)
    finally:
        reader.close()


@contextmanager
def reader_of(store: Store) -> Iterator[StoreReader | None]:
    """A reader for the block; None where nothing was stored yet."""
    try:
        reader = store.open_reader()
    except StoreMissingError:
        yield None
        return
    with closing(reader):
        yield reader


def without_password(text: str) -> str:
    """A text in which a URL's password is struck out.

    Example:
        >>> without_password("postgresql://me:secret@host/db"), without_password("runs.db")
        ('postgresql://me:***@host/db', 'runs.db')
    """
    return _PASSWORD.sub(r"\1:***@", text)


def _open(run: RunRow) -> bool:
    return bool(run.sessions) and run.sessions[-1].how is None
