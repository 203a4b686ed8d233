"""The tables, in a PostgreSQL schema of their own called `asyncflow`, made whole or not at all."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Connection, Integer, LargeBinary, MetaData, Table, insert, select
from sqlalchemy.exc import DBAPIError

from asyncflow.durability import migrations, tables
from asyncflow.errors import StoreError, StoreFormatError, StoreLockedError, StoreMissingError

NAME = "asyncflow"

#: Held in a transaction while the schema is made or migrated: "asyncflw" as a number.
_MAKING = 0x6173796E63666C77

_TABLES = "SELECT count(*) FROM pg_catalog.pg_class WHERE relnamespace = to_regnamespace(%s)"

metadata = MetaData()

#: One row. It is asked for before anything else is believed.
version = Table("version", metadata, Column("number", Integer, nullable=False))

#: What is in flight, see `marks`. Not written to the server's log: it is empty after a crash of the server.
marks = Table(
    "marks",
    metadata,
    Column("writer", BigInteger, primary_key=True, autoincrement=False),
    Column("slot", BigInteger, primary_key=True, autoincrement=False),
    Column("place", BigInteger, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("session", Integer, nullable=False),
    prefixes=["UNLOGGED"],
)


def found(connection: Connection, where: str) -> int | None:
    """The version of the schema that is there; None: there is none.

    Raises:
        StoreFormatError: If a schema of that name is somebody else's.
    """
    # In this order: whoever makes them meanwhile makes all at once.
    if not connection.exec_driver_sql(_TABLES, (NAME,)).scalar():
        return None
    if connection.exec_driver_sql("SELECT to_regclass('version')").scalar() is not None:
        number = connection.execute(select(version.c.number)).scalars().all()
        if len(number) == 1:
            return int(number[0])
    raise StoreFormatError(
        f"{where} has a schema {NAME!r} that is not a store's. It was left as it is; name another database"
    )


def check(connection: Connection, where: str) -> None:
    """Refuse what is not a store of this version."""
    number = found(connection, where)
    if number is None:
        raise StoreMissingError(f"there is no store in {where}")
    if number != tables.VERSION:
        raise StoreFormatError(migrations.refusal(where, number))


def prepare(connection: Connection, where: str) -> None:
    """Make the tables where there are none, and migrate older ones, in one transaction.

    Raises:
        StoreFormatError: If what is there is somebody else's, or of a newer version.
        StoreLockedError: If it is older, and runs are at work on it.
        StoreError: If the user may not.
    """
    if found(connection, where) == tables.VERSION:
        return
    connection.exec_driver_sql("BEGIN")
    try:
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_MAKING,))
        number = found(connection, where)  # another process may have come first
        if number is None:
            _make(connection, where)
        elif migrations.OLDEST <= number < tables.VERSION:
            _migrate(connection, number, where)
        elif number != tables.VERSION:
            raise StoreFormatError(migrations.refusal(where, number))
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise


def _make(connection: Connection, where: str) -> None:
    try:
        if connection.exec_driver_sql("SELECT to_regnamespace(%s)", (NAME,)).scalar() is None:
            connection.exec_driver_sql(f"CREATE SCHEMA {NAME}")
        tables.metadata.create_all(connection)
        metadata.create_all(connection)
        # Runs of several processes lie among each other here: reading one on must not pass over the others.
        connection.exec_driver_sql("CREATE INDEX records_run ON records (run, seq)")
        connection.execute(insert(version).values(number=tables.VERSION))
    except DBAPIError as exc:
        if getattr(exc.orig, "sqlstate", None) != "42501":
            raise
        raise StoreError(
            f"{where}: the user may not make the store's tables ({exc.orig}). Let an owner of the database "
            f"say once: CREATE SCHEMA {NAME} AUTHORIZATION the_user"
        ) from exc


def _migrate(connection: Connection, number: int, where: str) -> None:
    # Every writer holds the shared form of this lock, see `locks`.
    held = connection.exec_driver_sql(
        "SELECT NOT pg_try_advisory_xact_lock('runs'::regclass::oid::int8::bit(32)::int4, 0)"
    ).scalar()
    if held:
        raise StoreLockedError(
            f"{where} has version {number} of the schema and is to be migrated, but runs of an older "
            "asyncflow are at work on it: wait for them or end them"
        )
    migrations.migrate(connection, number)
    connection.exec_driver_sql("UPDATE version SET number = %s", (tables.VERSION,))
