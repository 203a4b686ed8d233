"""Opening a run: the lock, the checks, what is there already, and may this program go on with it?"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio

from asyncflow.durability import writer as writers
from asyncflow.durability.codec import Encoder
from asyncflow.durability.journal import RunJournal
from asyncflow.durability.lock import Holder
from asyncflow.durability.loops import on_thread
from asyncflow.durability.postgres.address import is_postgres
from asyncflow.durability.resume import Difference, Fingerprint, compare
from asyncflow.durability.runs import new_run_id
from asyncflow.durability.store import RunRow, Session, Store, StoreReader
from asyncflow.engine.journal import Changed, RetryFailed
from asyncflow.errors import ResumeMismatchError, RunStoppedError, StoreError, StoreLockedError

#: Process, store and run, of runs that are open, with whose each is: `setdefault` lets one thread in.
_at_work: dict[tuple[int, str, str], object] = {}


@asynccontextmanager
async def open_journal(
    store: Store | str | os.PathLike[str],
    run_id: str | None = None,
    *,
    name: str = "run",
    fingerprint: Fingerprint | None = None,
    changed: Changed = "refuse",
    retry_failed: RetryFailed = True,
    total: int | None = None,
    encoders: Iterable[Encoder] = (),
    types: Iterable[Any] = (),
    grace: float = writers.GRACE,
) -> AsyncIterator[RunJournal]:
    """A run's journal, on asyncio or trio. Leaving the block commits what waits and ends the session.

    Args:
        store: A store, or a path to a SQLite file.
        run_id: The run to begin or to resume; None: a new one, called after `name`.
        fingerprint: What the program is made of; None: not compared.
        changed: What to do if it is not what the run was recorded with.
        retry_failed: Whether items that failed run again. "only": they alone, and no item without a record.
        total: How many items there are now, where that is known: for what is said of a resumed run.
        encoders: How to record classes of other libraries.
        types: Classes that may be restored although no result type declares them.
        grace: Seconds for which a store in trouble is tried again.

    Opening and closing happen on a thread, and a cancellation meanwhile waits until they have ended.

    Raises:
        ValueError: If `changed` or `retry_failed` is none of the words they know.
        ResumeMismatchError: If the program has changed; nothing was written.
        StoreLockedError, StoreFormatError, StoreError: As the store says.
    """
    opened = open_run(
        store,
        run_id,
        name=name,
        fingerprint=fingerprint,
        changed=changed,
        retry_failed=retry_failed,
        total=total,
        encoders=encoders,
        types=types,
        grace=grace,
    )
    try:
        journal = await on_thread(opened.__enter__)
    except anyio.get_cancelled_exc_class() as exc:  # by asyncio, which no scope shields from; it is open now
        cancelled = exc
        await on_thread(lambda: opened.__exit__(type(cancelled), cancelled, None))
        raise
    try:
        yield journal
    except BaseException as exc:
        raised = exc  # of an own name: `exc` is unbound when the block ends
        await on_thread(lambda: opened.__exit__(type(raised), raised, None))
        raise
    else:
        await on_thread(lambda: opened.__exit__(None, None, None))


@contextmanager
def open_run(
    store: Store | str | os.PathLike[str],
    run_id: str | None = None,
    *,
    name: str = "run",
    fingerprint: Fingerprint | None = None,
    changed: Changed = "refuse",
    retry_failed: RetryFailed = True,
    total: int | None = None,
    encoders: Iterable[Encoder] = (),
    types: Iterable[Any] = (),
    grace: float = writers.GRACE,
) -> Iterator[RunJournal]:
    """`open_journal` for synchronous code; it blocks."""
    if changed not in ("refuse", "keep", "drop"):
        raise ValueError(f"changed={changed!r}: it is 'refuse', 'keep' or 'drop'")
    if retry_failed not in (True, False, "only"):
        raise ValueError(f"retry_failed={retry_failed!r}: it is True, False or 'only'")
    at = as_store(store)
    run_id = run_id or new_run_id(name)
    with _writer_for(at, run_id, grace) as writer:
        reader = at.open_reader()
        try:
            before = reader.run(run_id)
            if before is None and retry_failed == "only":
                raise ValueError(f"there is no run {run_id!r} in {at!r} whose failed items could run again")
            text, since = _settle(before, fingerprint, changed)
            with _begun(writer, reader, before, run_id, name, text) as (number, session):
                journal = RunJournal(
                    run_id,
                    number,
                    session,
                    before,
                    writer,
                    reader,
                    since=since,
                    retry_failed=retry_failed,
                    total=total,
                    encoders=encoders,
                    types=types,
                )
        except BaseException:
            reader.close()
            raise
        if before is None:
            reader.close()
        try:
            yield journal
        except BaseException as exc:
            with _told_by(exc):
                journal.close(_how(exc))
            raise
        journal.close("finished")


@contextmanager
def _writer_for(at: Store, run_id: str, grace: float) -> Iterator[writers.Writer]:
    """The store's writer, for the one run of this id that may be at work in this process."""
    here, mine = (os.getpid(), at.key, run_id), object()
    if _at_work.setdefault(here, mine) is not mine:
        raise StoreLockedError(
            f"run {run_id!r} in {at!r} is at work in this process: two of it would both make the same calls. "
            "Wait for it, or give this one a run_id of its own",
            pid=os.getpid(),
        )
    try:
        writer = writers.share(at, grace=grace)
    except BaseException:
        del _at_work[here]
        raise
    try:
        yield writer
    finally:
        del _at_work[here]
        writers.unshare(at, writer)


@contextmanager
def _begun(
    writer: writers.Writer,
    reader: StoreReader,
    before: RunRow | None,
    run_id: str,
    name: str,
    fingerprint: str,
) -> Iterator[tuple[int, int]]:
    """A new session of the run: the numbers of both. What breaks the block ends it: nobody else knows it."""
    number, session = writer.call(
        lambda backend: backend.start(run_id, name, fingerprint, time.time()), again=True
    )
    try:
        if (other := _meanwhile(before, reader.run(run_id), session)) is not None:
            raise StoreLockedError(
                f"run {run_id} was opened by process {other.pid} on {other.host} at the same moment. "
                "Start this one again: it goes on from there",
                pid=other.pid,
                host=other.host,
            )
        yield number, session
    except BaseException as exc:
        how = "cancelled" if isinstance(exc, StoreLockedError) else _how(exc)
        with _told_by(exc):
            writer.call(lambda backend: backend.end(session, how, time.time()), again=True)
        raise


@contextmanager
def _told_by(error: BaseException) -> Iterator[None]:
    """Closing after this was raised, which comes first: trouble of the store's becomes a note of it."""
    try:
        yield
    except StoreError as trouble:
        if str(trouble) != str(error):
            error.add_note(f"and the run could not be closed: {trouble}")


def _how(error: BaseException) -> str:
    """How a session ended that ended with this."""
    if isinstance(error, RunStoppedError):
        return "stopped"
    return "failed" if isinstance(error, Exception) else "cancelled"


def as_store(store: Store | str | os.PathLike[str]) -> Store:
    """A store, for a path or a URL.

    Raises:
        NotSupportedError: If the URL is of a kind that is not known, or whose extra is not installed.
        StoreError: If it cannot be read.
    """
    if isinstance(store, str) and is_postgres(store):
        from asyncflow.durability.postgres.store import PostgresStore

        return PostgresStore(store)
    if isinstance(store, (str, os.PathLike)):
        from asyncflow.durability.sqlstore import SQLStore

        return SQLStore(store)
    return store


def _meanwhile(before: RunRow | None, now: RunRow | None, session: int) -> Session | None:
    """A session of another process that came and went between looking at the run and having it."""
    known = {session, *(each.number for each in (before.sessions if before is not None else ()))}
    me = Holder.me()
    for each in now.sessions if now is not None else ():
        if each.number not in known and each.pid is not None and (each.pid, each.host) != (me.pid, me.host):
            return each
    return None


def _settle(
    before: RunRow | None, fingerprint: Fingerprint | None, changed: Changed
) -> tuple[str, dict[tuple[str, ...], int]]:
    """The text to keep as the run's fingerprint, and per node the last session whose results are dropped."""
    kept = json.loads(before.fingerprint) if before is not None else {}
    since: dict[str, int] = kept.get("since", {})
    program = kept.get("program")
    if fingerprint is not None and program is not None and before is not None:
        differences = compare(Fingerprint.from_text(program), fingerprint)
        if differences and changed == "refuse":
            raise _mismatch(before.id, differences)
        if changed == "drop":
            last = before.sessions[-1].number if before.sessions else 0
            since = {**since, **{each.node: last for each in differences if each.node is not None}}
    if fingerprint is not None:
        program = fingerprint.to_text()
    return json.dumps({"program": program, "since": since}), {
        tuple(node.split("/")): session for node, session in since.items()
    }


def _mismatch(run_id: str, differences: list[Difference]) -> ResumeMismatchError:
    texts = tuple(each.text for each in differences)
    listed = "\n".join(f"  - {text}" for text in texts)
    return ResumeMismatchError(
        f"the program has changed since run {run_id} was recorded:\n{listed}\n"
        "Keep its results (changed='keep'), drop those of the nodes that changed (changed='drop'), "
        "or start a new run",
        differences=texts,
    )
