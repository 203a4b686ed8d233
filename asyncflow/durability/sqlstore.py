"""The store over SQLAlchemy Core, in one SQLite file. `postgres` is the same on a server.

Example:
    >>> store = SQLStore("runs.db")
    >>> store
    SQLStore('runs.db')
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, Executable, func, select, update
from sqlalchemy.exc import DBAPIError

from asyncflow.durability import dialects, lock, marks, sqlite, tables
from asyncflow.durability.marks import FileMarks, Mark, Marks, NoMarks
from asyncflow.durability.postgres.address import is_postgres
from asyncflow.durability.sqlreader import SQLReader, TooLargeError
from asyncflow.durability.sqlwriter import SQLWriter
from asyncflow.durability.store import INTERRUPTED
from asyncflow.errors import NotSupportedError, StoreError, StoreFormatError, StoreMissingError

_dialect = dialects.SQLite()


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
            scheme = text.partition("://")[0]
            what = "SQLStore is one SQLite file" if is_postgres(text) else f"{scheme}://… is no store"
            raise NotSupportedError(f"{what}: store= takes a path, sqlite:///path or postgresql://…")
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
            raise StoreMissingError(f"there is no store at {path}")
        sqlite.check_header(path)
        return SQLReader(_Link(sqlite.reading_engine(path), path))

    def holder(self, run_id: str | None = None) -> str | None:
        found = lock.holder(sqlite.beside(self.path.resolve(), ".lock"))
        return None if found is None else str(found)

    def __repr__(self) -> str:
        return f"SQLStore({str(self.path)!r})"


class _Link:
    """See `sqlreader.Link`."""

    dialect = _dialect

    def __init__(self, engine: Engine, path: Path) -> None:
        self._engine = engine
        self._connection = _connect(engine, path)

    def execute(self, question: Executable, parameters: dict[str, Any] | None) -> CursorResult[Any]:
        try:
            return self._connection.execute(question, parameters)
        except DBAPIError as exc:
            too_large = getattr(exc.orig, "sqlite_errorname", "") == "SQLITE_TOOBIG"
            raise (TooLargeError if too_large else StoreError)(
                f"the store cannot be read: {exc.orig}"
            ) from exc

    def close(self) -> None:
        self._connection.close()
        self._engine.dispose()


class _Site:
    """See `sqlwriter.Site`: one connection, under the lock of the file, which covers all of its runs.

    Attributes:
        lost: Nothing: the lock of the file is the kernel's, and lasts.
        last: The position of the last record.
    """

    dialect = _dialect

    def __init__(self, engine: Engine, connection: Connection, held: lock.Lock, last: int) -> None:
        self.engine = engine
        self.marks: Marks = NoMarks()
        self.lost: dict[int, str] = {}
        self.last = last
        self.retryable = sqlite.retryable
        self._connection = connection
        self._lock = held

    def connection(self, *, sure: bool = False) -> Connection:
        return self._connection

    def rollback(self, connection: Connection) -> None:
        if connection.connection.in_transaction:  # some errors have rolled back already
            connection.exec_driver_sql("ROLLBACK")

    def claim(self, connection: Connection, run: int, run_id: str) -> list[list[Mark]]:
        return []

    def opened(self, run: int, session: int) -> None:
        pass

    def ended(self, run: int, session: int | None) -> None:
        pass

    def added(self, cursor: Any) -> None:
        self.last = max(self.last, cursor.lastrowid)
        self.marks.committed(self.last)

    def removed(self, connection: Connection) -> None:
        # Before the commit: after a kill in between, the marks miss too little rather than too much.
        self.last = connection.execute(select(func.max(tables.records.c.seq))).scalar() or 0
        self.marks.committed(self.last)

    def size(self, connection: Connection) -> int:
        pages, each = (
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("page_count", "page_size")
        )
        return int(pages * each)

    def compact(self, connection: Connection) -> None:
        connection.exec_driver_sql("VACUUM")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self, *, clean: bool) -> None:
        # In this order: killed between two steps, the next opening checks too much rather than too little.
        self._connection.close()
        self.engine.dispose()
        if isinstance(self.marks, FileMarks):
            if clean:
                self.marks.remove()
            else:
                self.marks.close()
        self._lock.release(clean=clean)

    def abandon(self) -> None:
        _left_alone.append((self._connection, self.engine, self.marks))


#: Connections of a parent process, kept so that no destructor touches the parent's files.
_left_alone: list[Any] = []


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
        site = _Site(engine, connection, held, last)
        writer = SQLWriter(site)
        if in_flight:
            writer.bury(in_flight)
        site.marks = FileMarks(marked)
        site.marks.committed(last)
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
