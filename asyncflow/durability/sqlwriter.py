"""The writing side of the SQL store: few statements, because each one costs a turn at the interpreter lock.

Python's SQLite gives the lock away around every statement, and where the event loop is busy it gets it back
only after 5 ms. `executemany` of 64 rows then takes 300 ms (measured), one INSERT of 64 rows and no explicit
transaction 15 ms. So a group is one INSERT of many rows, which is a transaction by itself.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Table, delete, insert, select, update

from asyncflow.durability import sqlite
from asyncflow.durability.lock import Lock
from asyncflow.durability.marks import FileMarks, Mark, Marks, NoMarks
from asyncflow.durability.store import PlaceRow, Record
from asyncflow.durability.tables import deaths, places, records, runs, sessions

#: SQLite takes 32,766 parameters in a statement; no group needs to be larger than this.
_ROWS = 992


class SQLWriter:
    """See `StoreWriter`. Used by one thread at a time."""

    def __init__(self, engine: Engine, connection: Connection, lock: Lock, last: int) -> None:
        self._engine = engine
        self._connection = connection
        self._lock = lock
        self._last = last
        self._records = _Insert(engine, records, (*Record._fields, "checksum"))
        self._places = _Insert(engine, places, PlaceRow._fields)
        self.marks: Marks = NoMarks()
        self.retryable = sqlite.retryable

    def start(self, run_id: str, name: str, fingerprint: str, now: float) -> tuple[int, int]:
        with self._transaction() as connection:
            run = connection.execute(select(runs.c.number).where(runs.c.id == run_id)).scalar()
            if run is None:
                row = insert(runs).values(id=run_id, name=name, created=now, fingerprint=fingerprint)
                run = _number_of(connection.execute(row))
            else:
                connection.execute(update(runs).where(runs.c.number == run).values(fingerprint=fingerprint))
            session = _number_of(connection.execute(insert(sessions).values(run=run, started=now)))
        return run, session

    def end(self, session: int, how: str, now: float) -> None:
        with self._transaction() as connection:
            connection.execute(
                update(sessions).where(sessions.c.number == session).values(ended=now, how=how)
            )

    def append(self, places: Sequence[PlaceRow], records: Sequence[Record]) -> None:
        found = [(row.id, row.run, json.dumps(row.path), row.visit) for row in places]
        rows = [(*row, zlib.crc32(row.data, zlib.crc32(row.key))) for row in records]
        if not found and len(rows) <= _ROWS:
            self._insert(self._records, rows)
        else:
            with self._transaction():
                for insertion, all_rows in ((self._places, found), (self._records, rows)):
                    for start in range(0, len(all_rows), _ROWS):
                        self._insert(insertion, all_rows[start : start + _ROWS])
        self.marks.committed(self._last)

    def bury(self, marks: Sequence[Mark]) -> None:
        alone = len(marks) == 1
        with self._transaction() as connection:
            for mark in marks:
                same = (records.c.place == mark.place, records.c.key == mark.key)
                recorded = select(records.c.seq).where(*same, records.c.session == mark.session)
                if connection.execute(recorded).first() is not None:
                    continue
                told = select(deaths.c.number).where(
                    deaths.c.place == mark.place, deaths.c.key == mark.key, deaths.c.session == mark.session
                )
                if connection.execute(told).first() is None:
                    connection.execute(
                        insert(deaths).values(
                            place=mark.place, key=mark.key, session=mark.session, alone=alone
                        )
                    )

    def remove(self, run: int) -> None:
        of_run = select(sessions.c.number).where(sessions.c.run == run)
        with self._transaction() as connection:
            connection.execute(delete(deaths).where(deaths.c.session.in_(of_run)))
            for table in (records, places, sessions):
                connection.execute(delete(table).where(table.c.run == run))
            connection.execute(delete(runs).where(runs.c.number == run))
            self._last = connection.exec_driver_sql("SELECT coalesce(max(seq), 0) FROM records").scalar_one()
        self.marks.committed(self._last)

    def compact(self) -> tuple[int, int]:
        def size() -> int:
            pages, each = (
                self._connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("page_count", "page_size")
            )
            return int(pages * each)

        before = size()
        self._connection.exec_driver_sql("VACUUM")
        self._connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return before, size()

    def close(self, *, clean: bool = True) -> None:
        # In this order: killed between two steps, the next opening checks too much rather than too little.
        self._connection.close()
        self._engine.dispose()
        if isinstance(self.marks, FileMarks):
            if clean:
                self.marks.remove()
            else:
                self.marks.close()
        self._lock.release(clean=clean)

    def abandon(self) -> None:
        _left_alone.append((self._connection, self._engine, self.marks))

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        self._connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.exec_driver_sql("COMMIT")
        except BaseException:
            if self._connection.connection.in_transaction:  # some errors have rolled back already
                self._connection.exec_driver_sql("ROLLBACK")
            raise

    def _insert(self, insertion: _Insert, rows: list[tuple[Any, ...]]) -> None:
        if rows:
            result = self._connection.exec_driver_sql(*insertion.of(rows))
            if insertion is self._records:
                self._last = max(self._last, result.lastrowid)


def _number_of(result: Any) -> int:
    return result.inserted_primary_key[0]  # type: ignore[no-any-return]


#: Connections of a parent process, kept so that no destructor touches the parent's files.
_left_alone: list[Any] = []


class _Insert:
    """An INSERT of any number of rows that keeps what is there, in the words of the engine's dialect."""

    def __init__(self, engine: Engine, table: Table, columns: tuple[str, ...]) -> None:
        from sqlalchemy.dialects.sqlite import insert

        one = insert(table).on_conflict_do_nothing().values(dict.fromkeys(columns))
        compiled = one.compile(engine, column_keys=list(columns))
        order = compiled.positiontup or []
        row = "(" + ", ".join("?" * len(columns)) + ")"
        self._head, self._tail = str(compiled).split(row)
        self._row = row
        # Rows come in the order of `columns`; the statement has the table's, which is the same.
        assert tuple(order) == columns, order
        self._texts: dict[int, str] = {}

    def of(self, rows: list[tuple[Any, ...]]) -> tuple[str, tuple[Any, ...]]:
        """Statement and parameters.

        Parsing a statement of hundreds of rows costs more than running it, so few lengths are in use: above
        32 rows the last one is repeated up to a multiple of 32, and kept once as every row that is there.
        """
        if len(rows) > 32:
            rows = rows + rows[-1:] * (-len(rows) % 32)
        text = self._texts.get(len(rows))
        if text is None:
            text = self._texts[len(rows)] = self._head + ", ".join([self._row] * len(rows)) + self._tail
        return text, tuple([value for row in rows for value in row])
