"""The writing side of the SQL store: few statements, because each one costs a turn at the interpreter lock.

A group is one INSERT of many rows, which is a transaction by itself. What the databases do differently is in
`dialects`; where the connection comes from, who else may write and what becomes of marks is the `Site`'s.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, delete, insert, select, update
from sqlalchemy.exc import DBAPIError

from asyncflow.durability import sqlanswers
from asyncflow.durability.dialects import Dialect, Rows
from asyncflow.durability.lock import Holder
from asyncflow.durability.marks import Mark, Marks
from asyncflow.durability.store import INTERRUPTED, Answer, PlaceRow, Record, RunLostError
from asyncflow.durability.tables import deaths, places, records, runs, sessions
from asyncflow.errors import StoreError, StoreLockedError


class Site(Protocol):
    """One place to write to, open and locked. Used by one thread at a time.

    Attributes:
        engine: For compiling.
        marks: Where items in flight are marked.
        lost: Sessions whose runs are another process's by now, each with how that came.
    """

    engine: Engine
    marks: Marks
    lost: dict[int, str]

    @property
    def dialect(self) -> Dialect: ...

    def connection(self, *, sure: bool = False) -> Connection:
        """The connection; a new one where it was lost and that does no harm. `sure`: ask whether it lives."""

    def rollback(self, connection: Connection) -> None:
        """Undo an open transaction, if there still is one, and what was claimed in it."""

    def claim(self, connection: Connection, run: int, run_id: str) -> list[list[Mark]]:
        """Make sure that nobody else writes to this run.

        Returns what was in flight when its last writer died, for each process that did.

        Raises:
            StoreLockedError: If somebody does.
        """

    def opened(self, run: int, session: int) -> None:
        """What was claimed is in use, until this session has ended."""

    def ended(self, run: int, session: int | None) -> None:
        """A session is over, or what a run was claimed for without one."""

    def added(self, cursor: Any) -> None:
        """Records were committed."""

    def removed(self, connection: Connection) -> None:
        """Records are about to be deleted: the transaction will commit."""

    def size(self, connection: Connection) -> int:
        """Of the whole store, in bytes."""

    def compact(self, connection: Connection) -> None:
        """Give back the space of what was deleted."""

    def retryable(self, error: BaseException) -> bool: ...
    def close(self, *, clean: bool) -> None: ...
    def abandon(self) -> None: ...


class SQLWriter:
    """See `StoreWriter`. Used by one thread at a time."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._add_records = site.dialect.insertion(site.engine, records, (*Record._fields, "checksum"))
        self._add_places = site.dialect.insertion(site.engine, places, PlaceRow._fields)
        self._add_answers = sqlanswers.insertion(site.engine, site.dialect)
        self._most = site.dialect.most_rows
        self._runs: dict[int, int] = {}
        self.retryable = site.retryable

    @property
    def marks(self) -> Marks:
        return self._site.marks

    def start(self, run_id: str, name: str, fingerprint: str, now: float) -> tuple[int, int]:
        with self._transaction() as connection:
            number = select(runs.c.number).where(runs.c.id == run_id)
            run = connection.execute(number).scalar()
            if run is None:
                row = {"id": run_id, "name": name, "created": now, "fingerprint": fingerprint}
                self._site.dialect.insertion(self._site.engine, runs, tuple(row))(
                    connection, [tuple(row.values())]
                )
                run = connection.execute(number).scalar_one()
            for marks in self._site.claim(connection, run, run_id):
                self._bury(connection, marks)
            cut_off = (sessions.c.run == run, sessions.c.how.is_(None))
            mine = sessions.c.number.not_in(list(self._runs))
            connection.execute(update(sessions).where(*cut_off, mine).values(how=INTERRUPTED))
            connection.execute(update(runs).where(runs.c.number == run).values(fingerprint=fingerprint))
            who = Holder.me(now)
            begun = insert(sessions).values(run=run, started=now, pid=who.pid, host=who.host)
            session = _key_of(connection.execute(begun))
        self._runs[session] = run
        self._site.opened(run, session)
        return run, session

    def end(self, session: int, how: str, now: float) -> None:
        with self._transaction() as connection:
            lost = self._site.lost.get(session)
            if lost is None:
                ended = update(sessions).where(sessions.c.number == session)
                connection.execute(ended.values(ended=now, how=how))
        run = self._runs.pop(session, None)
        if run is not None:
            self._site.ended(run, session)
        if lost is not None:
            raise RunLostError(lost, session=session)

    def append(self, places: Sequence[PlaceRow], records: Sequence[Record]) -> None:
        found = [(row.id, row.run, json.dumps(row.path), row.visit) for row in places]
        rows = [(*row, zlib.crc32(row.data, zlib.crc32(row.key))) for row in records]
        if not found and len(rows) <= self._most:
            if rows:
                connection = self._site.connection()
                self._refuse_lost(records)
                self._site.added(self._add(connection, self._add_records, rows))
            return
        cursor = None
        with self._transaction() as connection:
            self._refuse_lost(records)
            self._add(connection, self._add_places, found)
            cursor = self._add(connection, self._add_records, rows)
        if cursor is not None:
            self._site.added(cursor)

    def bury(self, marks: Sequence[Mark]) -> None:
        with self._transaction() as connection:
            self._bury(connection, marks)

    def remove(self, run: int) -> None:
        of_run = select(sessions.c.number).where(sessions.c.run == run)
        with self._transaction() as connection:
            run_id = connection.execute(select(runs.c.id).where(runs.c.number == run)).scalar()
            if run_id is None:
                return
            if run in self._runs.values():
                raise StoreLockedError(f"run {run_id} is at work in this process: it cannot be removed")
            self._site.claim(connection, run, run_id)
            connection.execute(delete(deaths).where(deaths.c.session.in_(of_run)))
            for table in (records, places, sessions):
                connection.execute(delete(table).where(table.c.run == run))
            connection.execute(delete(runs).where(runs.c.number == run))
            self._site.removed(connection)
        self._site.ended(run, None)

    def prepare_answers(self) -> None:
        for more in (True, False):
            try:
                with self._transaction() as connection:
                    sqlanswers.prepare(connection)
                return
            except DBAPIError as exc:  # or another process has made it at the same moment
                if not more:
                    raise StoreError(f"the store has no room for answers: {exc.orig}") from exc

    def keep_answers(self, answers: Sequence[Answer], most: int | None = None) -> None:
        for start in range(0, len(answers), self._most):
            some = answers[start : start + self._most]
            rows = sqlanswers.rows_of(some)
            if self._add(self._site.connection(), self._add_answers, rows).rowcount != len(rows):
                with self._transaction() as connection:  # some of these keys had answers
                    sqlanswers.make_room(connection, some)
                    self._add(connection, self._add_answers, rows)
        if most is not None:
            with self._transaction() as connection:
                sqlanswers.bound(connection, most)

    def drop_answers(self, now: float | None = None) -> None:
        with self._transaction() as connection:
            sqlanswers.drop(connection, now)

    def compact(self) -> tuple[int, int]:
        connection = self._site.connection(sure=True)
        before = self._site.size(connection)
        self._site.compact(connection)
        return before, self._site.size(connection)

    def close(self, *, clean: bool = True) -> None:
        self._site.close(clean=clean)

    def abandon(self) -> None:
        self._site.abandon()

    def _refuse_lost(self, records: Sequence[Record]) -> None:
        if lost := self._site.lost:
            for record in records:
                if record.session in lost:
                    raise RunLostError(lost[record.session], session=record.session)

    def _bury(self, connection: Connection, marks: Sequence[Mark]) -> None:
        alone = len(marks) == 1
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
                    insert(deaths).values(place=mark.place, key=mark.key, session=mark.session, alone=alone)
                )

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        connection = self._site.connection(sure=True)
        connection.exec_driver_sql(self._site.dialect.begin)
        try:
            yield connection
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            self._site.rollback(connection)
            raise

    def _add(self, connection: Connection, insertion: Callable[[Connection, Rows], Any], rows: Rows) -> Any:
        cursor = None
        for start in range(0, len(rows), self._most):
            cursor = insertion(connection, rows[start : start + self._most])
        return cursor


def _key_of(result: Any) -> int:
    return result.inserted_primary_key[0]  # type: ignore[no-any-return]
