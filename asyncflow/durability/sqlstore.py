"""The store over SQLAlchemy Core: SQLite now, and written so that PostgreSQL is a second dialect.

Example:
    >>> store = SQLStore("runs.db")
    >>> store
    SQLStore('runs.db')
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, func, select, update
from sqlalchemy.exc import DBAPIError

from asyncflow.durability import lock, marks, sqlite, tables
from asyncflow.durability.marks import FileMarks
from asyncflow.durability.sqlreader import SQLReader
from asyncflow.durability.sqlwriter import SQLWriter
from asyncflow.durability.store import INTERRUPTED
from asyncflow.errors import NotSupportedError, StoreError, StoreFormatError


class SQLStore:
    """Runs in one SQLite file.

    Args:
        url: A path, or a URL `sqlite:///path`. The file is made by the first run; its directory must exist.

    Guarantees: what a writer has returned from is on the disk (`synchronous=FULL`). Not safe on a network
    file system (it warns), nor on hardware that lies about having written.
    """

    def __init__(self, url: str | os.PathLike[str] = "runs.db") -> None:
        text = os.fspath(url)
        if "://" in text and not text.startswith("sqlite:///"):
            raise NotSupportedError(f"a store is a path or sqlite:///path, not {text.split(':')[0]}://…")
        self.path = Path(text.removeprefix("sqlite:///"))

    @property
    def key(self) -> str:
        return f"sqlite:{self.path.resolve()}"

    def open_writer(self) -> SQLWriter:
        path = self.path.resolve()
        if not path.parent.is_dir():
            raise StoreError(f"{path} cannot be made: there is no directory {path.parent}")
        held = lock.Lock(sqlite.beside(path, ".lock"), what=str(path))
        try:
            sqlite.prepare(path)
            return _open(path, held)
        except BaseException:
            held.release(clean=False)
            raise

    def open_reader(self) -> SQLReader:
        path = self.path.resolve()
        if not path.exists():
            raise StoreError(f"there is no store at {path}")
        sqlite.check_header(path)
        engine = sqlite.reading_engine(path)
        return SQLReader(engine, _connect(engine, path))

    def holder(self) -> str | None:
        found = lock.holder(sqlite.beside(self.path.resolve(), ".lock"))
        return None if found is None else lock.describe(found)

    def __repr__(self) -> str:
        return f"SQLStore({str(self.path)!r})"


def _connect(engine: Engine, path: Path) -> Connection:
    try:
        return engine.connect()
    except DBAPIError as exc:
        engine.dispose()
        raise _translated(exc, path) from exc


def _translated(error: DBAPIError, path: Path) -> StoreError:
    """What SQLite says at an opening, as ours."""
    name = getattr(error.orig, "sqlite_errorname", "")
    if name in ("SQLITE_CORRUPT", "SQLITE_NOTADB") or "malformed" in str(error.orig):
        return StoreFormatError(f"{path} is damaged: {error.orig}. It was left as it is")
    return StoreError(f"{path} cannot be opened: {error.orig}")


def _open(path: Path, held: lock.Lock) -> SQLWriter:
    marked = sqlite.beside(path, ".marks")
    length, in_flight = marks.read(marked)
    engine = sqlite.writing_engine(path)
    connection = _connect(engine, path)
    try:
        if held.dirty:
            sqlite.quick_check(connection, path)
        last = connection.execute(select(func.max(tables.records.c.seq))).scalar() or 0
        if last < length:
            raise StoreFormatError(
                f"{path} ends at record {last}, but {length} were committed: its -wal file was removed, or "
                "the file was copied without it. Put it back; or, to go on without those records, "
                f"delete {marked}"
            )
        held.soil()
        # Nobody else can be writing: what was never closed was cut off.
        cut = update(tables.sessions).where(tables.sessions.c.how.is_(None)).values(how=INTERRUPTED)
        connection.execute(cut)
        writer = SQLWriter(engine, connection, held, last)
        if in_flight:
            writer.bury(in_flight)
        writer.marks = FileMarks(marked)
        writer.marks.committed(last)
        return writer
    except DBAPIError as exc:
        _discard(engine, connection)
        raise _translated(exc, path) from exc
    except OSError as exc:
        _discard(engine, connection)
        raise StoreError(f"{marked} cannot be written: {exc.strerror}") from exc
    except BaseException:
        _discard(engine, connection)
        raise


def _discard(engine: Engine, connection: Any) -> None:
    connection.close()
    engine.dispose()
