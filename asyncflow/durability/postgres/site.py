"""The writing connection: what it holds, and what becomes of that when it is lost.

With a lost connection the locks of its runs are gone, and the new one takes them again. A run that somebody
has opened in between is lost: the results in hand would go into a run that is somebody else's by now. The
other runs go on.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from asyncflow.durability import dialects
from asyncflow.durability.dialects import Dialect
from asyncflow.durability.marks import Mark, Marks
from asyncflow.durability.postgres import locks, schema
from asyncflow.durability.postgres.address import Address
from asyncflow.durability.postgres.connecting import (
    Backend,
    StandbyError,
    backend,
    driver_of,
    engine,
    passes,
    patiently,
    suits,
)
from asyncflow.durability.postgres.marks import TableMarks, take
from asyncflow.durability.tables import runs, sessions


class Site:
    """See `sqlwriter.Site`.

    Raises:
        StoreError: If the server cannot be reached or does not suit.
    """

    dialect: Dialect = dialects.PostgreSQL()

    def __init__(self, address: Address) -> None:
        self._address = address
        self._claimed: list[int] = []
        self._sessions: dict[int, int] = {}
        self.lost: dict[int, str] = {}
        self.engine = engine(address)
        patiently(address, lambda: self._connect(None))
        self._marks = TableMarks(address)
        self.marks: Marks = self._marks

    def connection(self, *, sure: bool = False) -> Connection:
        if sure and not self._driver.closed:
            with suppress(DBAPIError):
                self._connection.exec_driver_sql("SELECT 1")
        if self._driver.closed:
            self._drop()
            self._connect(self._backend)
        return self._connection

    def rollback(self, connection: Connection) -> None:
        claimed, self._claimed = self._claimed, []
        with suppress(SQLAlchemyError):  # lost: then nothing is open, and nothing held
            connection.exec_driver_sql("ROLLBACK")
            for run in claimed:
                locks.give(connection, run)

    def claim(self, connection: Connection, run: int, run_id: str) -> list[list[Mark]]:
        if not locks.take(connection, run):
            raise locks.refusal(connection, run, run_id, str(self._address))
        self._claimed.append(run)
        cut_off = select(sessions.c.number).where(
            sessions.c.run == run, sessions.c.how.is_(None), sessions.c.number.not_in(list(self._sessions))
        )
        died = connection.execute(cut_off).scalars().all()
        if died:
            self._marks.careful()
        return take(connection, died)

    def opened(self, run: int, session: int) -> None:
        self._claimed.clear()
        self._sessions[session] = run

    def ended(self, run: int, session: int | None) -> None:
        self._claimed.clear()
        if session is not None:
            del self._sessions[session]
            if self.lost.pop(session, None) is not None:
                return  # the lock is not ours
        with suppress(SQLAlchemyError):  # what is lost is not held
            locks.give(self._connection, run)

    def added(self, cursor: Any) -> None:
        pass

    def removed(self, connection: Connection) -> None:
        pass

    def size(self, connection: Connection) -> int:
        return int(
            connection.exec_driver_sql(
                "SELECT sum(pg_total_relation_size(oid)) FROM pg_catalog.pg_class "
                "WHERE relkind = 'r' AND relnamespace = to_regnamespace(%s)",
                (schema.NAME,),
            ).scalar_one()
        )

    def compact(self, connection: Connection) -> None:
        tables = connection.exec_driver_sql(
            "SELECT quote_ident(tablename) FROM pg_catalog.pg_tables WHERE schemaname = %s", (schema.NAME,)
        )
        connection.exec_driver_sql(f"VACUUM (FULL, ANALYZE) {', '.join(tables.scalars())}")

    def retryable(self, error: BaseException) -> bool:
        return isinstance(error, (_StillThereError, StandbyError)) or passes(error)

    def close(self, *, clean: bool) -> None:
        self._marks.close()
        self._drop()

    def abandon(self) -> None:
        # The child's copy of a socket would keep the parent's locks alive.
        for driver in (self._driver, *self._marks.abandon()):
            with suppress(Exception):
                os.close(driver.fileno())
            _left_alone.append(driver)
        _left_alone.append((self._connection, self.engine))

    def _connect(self, lost: Backend | None) -> None:
        """A connection with a store that is ready, and with what a lost one held and may have again."""
        connection = self.engine.connect()
        try:
            where = str(self._address)
            suits(connection, where)
            schema.prepare(connection, where)
            locks.enter(connection, where)
            if lost is not None:
                for session, run in self._sessions.items():
                    if session not in self.lost and not self._reclaim(connection, run, session, lost):
                        self.lost[session] = (
                            f"while the connection to {where} was lost, another process has opened or "
                            "removed the run. It stops here; what was committed before is whole"
                        )
            self._backend = backend(connection)
        except BaseException:
            connection.close()
            raise
        self._connection, self._driver = connection, driver_of(connection)

    def _reclaim(self, connection: Connection, run: int, session: int, lost: Backend) -> bool:
        """Lock a run again. False: it is another's."""
        taken = locks.take(connection, run)
        if not taken:
            # The server may not have noticed that our own old connection is lost.
            ended = connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity "
                "WHERE pid = %s AND backend_start::text = %s",
                lost,
            )
            if ended.first() is not None:
                raise _StillThereError("the server has not yet given up the lost connection")
            taken = locks.take(connection, run)  # it may have been given up since
        newer = select(sessions.c.number).where(
            sessions.c.run == run,
            sessions.c.number > session,
            sessions.c.number.not_in(list(self._sessions)),
        )
        there = select(runs.c.number).where(runs.c.number == run)
        if not taken:
            return False
        unchanged = (
            connection.execute(newer.limit(1)).first() is None
            and connection.execute(there).first() is not None
        )
        if not unchanged:
            locks.give(connection, run)
        return unchanged

    def _drop(self) -> None:
        with suppress(SQLAlchemyError):
            self._connection.close()
        self.engine.dispose()


class _StillThereError(Exception):
    """The lost connection is being ended by the server."""


#: Connections of a parent process, kept so that no destructor says goodbye in the parent's name.
_left_alone: list[Any] = []
