"""The store on a PostgreSQL server: see `Store`."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from sqlalchemy import CursorResult, Executable
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from asyncflow.durability import dialects
from asyncflow.durability.dialects import Dialect
from asyncflow.durability.postgres import locks, schema
from asyncflow.durability.postgres.address import Address
from asyncflow.durability.postgres.connecting import (
    GRACE,
    PAUSES,
    driver_of,
    engine,
    passes,
    patiently,
    translated,
)
from asyncflow.durability.postgres.site import Site
from asyncflow.durability.sqlreader import SQLReader
from asyncflow.durability.sqlwriter import SQLWriter
from asyncflow.errors import StoreMissingError


class PostgresStore:
    """Runs in one PostgreSQL database, in a schema called `asyncflow`, which the first run makes.

    Args:
        url: As libpq takes it: `postgresql://user:password@host:port/database`.

    Guarantees: what a writer has returned from is committed (`synchronous_commit` is not off). A run has one
    writer at a time, under a lock that the server takes back from a connection that ends; different runs of a
    database may be written by different processes, on different machines. Not through a pooler that hands
    out connections by transaction (PgBouncer's `pool_mode=transaction`): locks belong to connections.

    Raises:
        NotSupportedError: If psycopg is not installed (`pip install 'asyncflow-engine[postgres]'`).
        StoreError: If the URL cannot be read.

    Example:
        >>> PostgresStore("postgresql://me:secret@localhost/work")
        PostgresStore('postgresql://me@localhost:5432/work')
    """

    def __init__(self, url: str) -> None:
        self._address = Address(url)

    @property
    def key(self) -> str:
        return self._address.key

    def open_writer(self) -> SQLWriter:
        return SQLWriter(Site(self._address))

    def open_reader(self) -> SQLReader:
        return SQLReader(_Link(self._address))

    def holder(self, run_id: str | None = None) -> str | None:
        try:
            link = _Link(self._address)
        except StoreMissingError:
            return None
        try:
            found = locks.holder(link.connection, run_id)
        except DBAPIError as exc:
            raise translated(exc, self._address, "cannot be read") from None
        finally:
            link.close()
        return None if found is None else str(found)

    def __repr__(self) -> str:
        return f"PostgresStore({self._address!r})"


class _Link:
    """See `sqlreader.Link`. A question changes nothing, so one that lost its connection is asked again."""

    dialect: Dialect = dialects.PostgreSQL()

    def __init__(self, address: Address) -> None:
        self._address = address
        self._engine = engine(address, only_read=True)
        patiently(address, self._connect)

    def execute(self, question: Executable, parameters: dict[str, Any] | None) -> CursorResult[Any]:
        until, pause = 0.0, PAUSES[0]
        while True:
            try:
                if self._driver.closed:
                    self.close()
                    self._connect()
                return self.connection.execute(question, parameters)
            except DBAPIError as exc:
                now = time.monotonic()
                until = until or now + GRACE
                if now > until or not passes(exc):
                    raise translated(exc, self._address, "cannot be read") from None
                time.sleep(pause)
                pause = min(PAUSES[1], pause * 2)

    def close(self) -> None:
        with suppress(SQLAlchemyError):  # it may be lost
            self.connection.close()
        self._engine.dispose()

    def _connect(self) -> None:
        connection = self._engine.connect()
        try:
            where = str(self._address)
            if schema.found(connection, where) is None:
                raise StoreMissingError(f"there is no store in {where}")
            schema.check(connection, where)
        except BaseException:
            connection.close()
            raise
        self.connection, self._driver = connection, driver_of(connection)
