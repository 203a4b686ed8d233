"""Engines of one connection, and what a server must be like."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Engine, NullPool, create_engine
from sqlalchemy.exc import DBAPIError

from asyncflow.durability.postgres import schema
from asyncflow.durability.postgres.address import Address
from asyncflow.errors import StoreError

T = TypeVar("T")
_log = logging.getLogger("asyncflow")

#: Seconds for which a server that is not ready yet is waited for.
GRACE = 30.0
#: Seconds between two tries, the first and the longest.
PAUSES = 0.05, 1.0
#: What passes, by the server's code: no room, too busy, shutting down, standing by, a cut of the connection.
_PASSES = ("08", "40", "53", "57P", "58", "25006", "55P03")


#: How a server begins that is starting up, recovering or shutting down: of a login that it turns away the
#: driver hands on no code, only the text. One that speaks another language is not waited for.
_NOT_READY = "the database system is "


class StandbyError(StoreError):
    """A server that only reads; after a failover it may be the primary in a moment."""


class Backend(NamedTuple):
    """A connection as the server knows it: its process there, and since when, as its processes' numbers come
    again."""

    pid: int
    since: str


def engine(address: Address, *, only_read: bool = False) -> Engine:
    """In autocommit: a group of records is one statement, so one transaction."""
    return create_engine(
        "postgresql+psycopg://",
        creator=lambda: address.connect(search_path=schema.NAME, only_read=only_read),
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        use_native_hstore=False,
        hide_parameters=True,
    )


def driver_of(connection: Connection) -> Any:
    """psycopg's connection: it knows whether it is lost."""
    return connection.connection.dbapi_connection


def backend(connection: Connection) -> Backend:
    row = connection.exec_driver_sql(
        "SELECT pid, backend_start::text FROM pg_catalog.pg_stat_activity WHERE pid = pg_backend_pid()"
    ).one()
    return Backend(*row)


def suits(connection: Connection, where: str) -> None:
    """Refuse a server on which the promise could not be kept, and warn of one that may break it.

    Raises:
        StoreError: If it only reads, or cannot hold every text.
    """
    encoding, recovering, fsync = connection.exec_driver_sql(
        "SELECT current_setting('server_encoding'), pg_is_in_recovery(), current_setting('fsync')"
    ).one()
    if encoding != "UTF8":
        raise StoreError(
            f"{where} holds text as {encoding}: a store needs a database in UTF8 "
            "(CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0)"
        )
    if recovering:
        raise StandbyError(f"{where} is a standby and only reads: name the primary server")
    if fsync == "off":
        warnings.warn(
            f"{where} runs with fsync=off: results that were committed are lost with the server's machine",
            RuntimeWarning,
            stacklevel=2,
        )
    connection.exec_driver_sql(
        "SELECT set_config('synchronous_commit', 'on', false) "
        "WHERE current_setting('synchronous_commit') = 'off'"
    )


def patiently(address: Address, connect: Callable[[], T]) -> T:
    """What `connect` returns, tried again while the server says that it is not ready. Blocks.

    Raises:
        StoreError: If it is not ready in time, or at once where waiting would not help: a password that is
            refused, a server that is not there.
    """
    until, pause = 0.0, PAUSES[0]
    while True:
        try:
            return connect()
        except DBAPIError as exc:
            now, error = time.monotonic(), translated(exc, address, "cannot be opened")
            if not (now < until and passes(exc) if until else _is_not_ready(exc)):
                raise error from None
            if not until:
                until = now + GRACE
                _log.warning("asyncflow: %s; waiting for it, at most %.0f s", error, GRACE)
        time.sleep(pause)
        pause = min(PAUSES[1], pause * 2)


def _is_not_ready(error: DBAPIError) -> bool:
    if getattr(error.orig, "sqlstate", None) is not None:
        return passes(error)
    return _NOT_READY in str(error.orig)


def translated(error: DBAPIError, address: Address, what: str) -> StoreError:
    """What the server or the driver says, as ours."""
    return StoreError(f"{address} {what}: {address.without_password(error.orig)}")


def passes(error: BaseException) -> bool:
    """Whether an error may be gone after a while."""
    if not isinstance(error, DBAPIError):
        return False
    code = getattr(error.orig, "sqlstate", None)
    if code is not None:
        return bool(code.startswith(_PASSES))
    # The server has said nothing: it cannot be reached, or was cut off.
    return error.connection_invalidated or type(error.orig).__name__ in ("OperationalError", "InterfaceError")
