"""Stores opened for looking: which run is meant, and how does it stand? Nothing is locked or written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from asyncflow.cli.usage import UsageError
from asyncflow.durability import as_store, resolve, status
from asyncflow.durability.store import RunRow, Store, StoreReader
from asyncflow.errors import StoreMissingError

#: What a store is called that has no name of its own; behind the name of an output, that output's store.
DEFAULT = "runs.db"

_PASSWORD = re.compile(r"(?<=://)([^:/@]*):[^@/]*@")


@dataclass(frozen=True, slots=True)
class One:
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


class Found(NamedTuple):
    """A run, where it lies, and its status."""

    at: One
    run: RunRow
    how: str


@dataclass(frozen=True, slots=True)
class Opened:
    """The stores that are looked into: the one that was named, or those of the folder."""

    stores: tuple[One, ...]

    @property
    def name(self) -> str:
        """Of all of them, for people."""
        return " and ".join(at.name for at in self.stores)

    def runs(self) -> list[Found]:
        """All runs, oldest first."""
        found = [Found(at, run, how) for at in self.stores for run, how in at.runs()]
        return sorted(found, key=lambda one: one.run.created)

    def run(self, text: str) -> Found:
        """The run that is meant by its id, a unique beginning of it, or `@last`.

        Raises:
            UsageError: If none is, or several are.
        """
        runs = self.runs()
        try:
            name = resolve(text, list(dict.fromkeys(one.run.id for one in runs)))
        except LookupError as exc:
            raise UsageError(f"{self.name}: {exc.args[0]}") from None
        found = [one for one in runs if one.run.id == name]
        if len(found) > 1:
            where = " and ".join(one.at.name for one in found)
            raise UsageError(f"{name} is in {where}: say by --store which is meant")
        return found[0]


@contextmanager
def opened(text: str | None) -> Iterator[Opened]:
    """The store of that path or URL, for the block; None: all of the folder that commands make by themselves.

    Raises:
        UsageError: If there is none.
        StoreError: If one cannot be read.
    """
    with ExitStack() as stack:
        names = [text] if text is not None else _here()
        yield Opened(tuple(stack.enter_context(_one(name)) for name in names))


def beside(output: Path) -> Path:
    """The store of what a command writes there.

    Example:
        >>> beside(Path("rated.jsonl")).name
        'rated.jsonl.runs.db'
    """
    return output.with_name(f"{output.name}.{DEFAULT}")


def _here() -> list[str]:
    found = [path for path in (Path(DEFAULT), *sorted(Path().glob(f"*.{DEFAULT}"))) if path.exists()]
    if not found:
        raise UsageError(
            f"there is no store at {Path(DEFAULT).resolve()}, nor one of an output (*.{DEFAULT}); where it "
            "lies is said by --store"
        )
    return [str(path) for path in found]


@contextmanager
def _one(name: str) -> Iterator[One]:
    store = as_store(name)
    try:
        reader = store.open_reader()
    except StoreMissingError as exc:
        raise UsageError(f"{exc}; where it lies is said by --store") from None
    with closing(reader):
        yield One(without_password(name), store, reader)


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
