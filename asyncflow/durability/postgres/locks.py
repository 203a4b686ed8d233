"""One writer for each run: an advisory lock of the server, which goes when the connection does.

A lock is a pair of numbers: the identity of the table `runs`, which tells two stores of one server apart, and
the run's number; 0 instead of it is held by every writer, shared, so that nobody migrates beneath one. Who
holds a run is told by its last session, which the server lets everybody read, as it does not its own list of
connections.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from asyncflow.durability import lock
from asyncflow.durability.lock import Holder
from asyncflow.durability.tables import runs, sessions
from asyncflow.errors import StoreError

_STORE = "'runs'::regclass::oid::int8::bit(32)::int4"
_HELD = """
SELECT l.objid::int8, l.pid FROM pg_catalog.pg_locks AS l
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = 'runs'::regclass::oid
AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
"""


def enter(connection: Connection, where: str) -> None:
    """Say that a writer is here."""
    if not connection.exec_driver_sql(f"SELECT pg_try_advisory_lock_shared({_STORE}, 0)").scalar():
        raise StoreError(f"{where} is being migrated by another process: try again when it is done")


def take(connection: Connection, run: int) -> bool:
    """Lock a run, once more where this connection has it already. False: another connection has it."""
    text = f"SELECT pg_try_advisory_lock({_STORE}, %s)"
    return bool(connection.exec_driver_sql(text, (run,)).scalar())


def give(connection: Connection, run: int) -> None:
    """Undo one `take`."""
    connection.exec_driver_sql(f"SELECT pg_advisory_unlock({_STORE}, %s)", (run,))


def held(connection: Connection) -> dict[int, int]:
    """The runs that are locked, each with the server's number of the connection that has it."""
    found = connection.exec_driver_sql(_HELD).all()
    return {run: backend for run, backend in found if run}


def holder(connection: Connection, run_id: str | None) -> Holder | None:
    """Who writes to a run, or to any."""
    at_work = list(held(connection))
    last = (
        select(sessions.c.pid, sessions.c.host, sessions.c.started)
        .join(runs, runs.c.number == sessions.c.run)
        .where(sessions.c.how.is_(None), sessions.c.run.in_(at_work))
        .order_by(sessions.c.number.desc())
    )
    if run_id is not None:
        last = last.where(runs.c.id == run_id)
    row = connection.execute(last.limit(1)).first()
    return None if row is None else Holder.of(*row)


def refusal(connection: Connection, run: int, run_id: str, where: str) -> Exception:
    """The error for whoever comes second to a run."""
    last = select(sessions.c.pid, sessions.c.host, sessions.c.started).where(
        sessions.c.run == run, sessions.c.how.is_(None)
    )
    row: Any = connection.execute(last.order_by(sessions.c.number.desc()).limit(1)).first()
    found = Holder() if row is None else Holder.of(*row)
    return lock.refusal(
        f"run {run_id} in {where}", found, "Other runs of the database may be written at the same time"
    )
