"""One thread that writes for the whole process: it takes all that waits and commits it as one group.

There is no timer. While a group is being committed the next one gathers, so under load groups are large and a
lone record never waits for company. Two openings of one store share the thread (`share`). Whoever handed in a
record is told on their own loop, once per group, when it is durable or why it never will be.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol, TypeVar
from weakref import WeakValueDictionary

from asyncflow.durability.marks import Marks, NoMarks
from asyncflow.durability.store import PlaceRow, Record, RunLostError, Store, StoreWriter
from asyncflow.engine.journal import Committed
from asyncflow.errors import StoreError, StoreLockedError

T = TypeVar("T")
_log = logging.getLogger("asyncflow")

#: Records in one group at most, so that nobody waits for a very long commit.
GROUP = 1000
#: Seconds during which a store that cannot be written to, but may recover, is tried again.
GRACE = 30.0


class Home(Protocol):
    """The part of the engine's host that the writer needs."""

    @property
    def key(self) -> object: ...
    def from_thread(self, callback: Callable[[], None]) -> None: ...


class _Entry(NamedTuple):
    record: Record
    place: PlaceRow | None
    committed: Committed | None
    home: Home


class _Call:
    """A question or order to the store, which waits its turn among the records."""

    def __init__(
        self,
        function: Callable[[StoreWriter], Any],
        again: bool = False,
        failed: Callable[[BaseException], None] | None = None,
    ) -> None:
        self.function = function
        self.again = again
        self.failed = failed
        self.done = threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None


class Writer:
    """Opens the store and starts the thread.

    Args:
        grace: Seconds for which a full disk or an I/O error is tried again. Results in hand are kept, and
            nothing is told durable; then all that waits, and all that comes later, gets the StoreError.

    Attributes:
        groups, records: What was committed so far.
        trouble: The error that is being tried again now, or None.
    """

    def __init__(self, store: Store, *, grace: float = GRACE) -> None:
        self._store = store
        self._grace = grace
        self._backend = store.open_writer()
        self._queue: SimpleQueue[_Entry | _Call | None] = SimpleQueue()
        self._error: StoreError | None = None
        self._forked = self._given_up = False
        self.groups = 0
        self.records = 0
        self.trouble: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="asyncflow-store", daemon=True)
        self._thread.start()

    @property
    def marks(self) -> Marks:
        """Where items in flight are marked."""
        return _NO_MARKS if self._given_up else self._backend.marks

    @property
    def failed(self) -> bool:
        """Whether the store's trouble was final: nothing is written by this writer any more."""
        return self._error is not None

    def submit(self, record: Record, place: PlaceRow | None, committed: Committed | None, home: Home) -> None:
        """Hand in a record, and its place where that may be new. Never waits; from any thread."""
        if self._forked:
            raise StoreError(_FORKED)
        self._queue.put(_Entry(record, place, committed, home))

    def call(self, function: Callable[[StoreWriter], T], *, again: bool = False) -> T:
        """Run `function` on the writer's thread, after all that was handed in before. Blocks.

        Args:
            again: Whether it may be repeated within the grace, as records are, where the store is in trouble.
        """
        if self._forked:
            raise StoreError(_FORKED)
        call = _Call(function, again)
        self._queue.put(call)
        call.done.wait()
        if call.error is not None:
            raise call.error
        return call.value  # type: ignore[no-any-return]

    def post(self, function: Callable[[StoreWriter], None], failed: Callable[[BaseException], None]) -> None:
        """Run `function` on the writer's thread, as `call` does, and do not wait.

        What it raises is given to `failed`, on that thread; the records of runs are not touched by it.
        """
        if self._forked:
            raise StoreError(_FORKED)
        self._queue.put(_Call(function, failed=failed))

    def close(self) -> None:
        """Commit what waits, close the store and give its lock back. Blocks."""
        self._queue.put(None)
        self._thread.join()
        if not self._given_up:
            self._backend.close(clean=not self.failed)

    def give_up(self) -> None:
        """Of one that has failed: give the store and its lock back. Who still uses it hears why."""
        self._given_up = True
        self._backend.close(clean=False)

    def __repr__(self) -> str:
        state = f"trouble={self.trouble!r}" if self.trouble else f"waiting={self._queue.qsize()}"
        return f"<Writer {self._store!r} groups={self.groups} records={self.records} {state}>"

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            while isinstance(item, _Entry):
                group, item = self._gather(item)
                self._commit(group)
            if item is None:
                return
            if isinstance(item, _Call):
                self._answer(item)

    def _gather(self, first: _Entry) -> tuple[list[_Entry], Any]:
        """All that waits, up to the first thing that is not a record, which comes back too."""
        group = [first]
        following = self._queue.get_nowait
        try:
            while len(group) < GROUP:
                item = following()
                if type(item) is not _Entry:
                    return group, item
                group.append(item)
        except Empty:
            pass
        return group, _NOTHING

    def _commit(self, group: list[_Entry]) -> None:
        while group:
            rest: list[_Entry] = []
            try:
                error = self._error if self._error is not None else self._append(group)
            except RunLostError as exc:  # of one run: its records are told so, and the others tried again
                error, rest = exc, [entry for entry in group if entry.record.session != exc.session]
                group = [entry for entry in group if entry.record.session == exc.session]
            if error is None:
                self.groups += 1
                self.records += len(group)
            self._tell(group, error)
            group = rest

    def _tell(self, group: list[_Entry], error: StoreError | None) -> None:
        homes: dict[object, tuple[Home, list[Committed]]] = {}
        for entry in group:
            if entry.committed is not None:
                homes.setdefault(entry.home.key, (entry.home, []))[1].append(entry.committed)
        for home, waiting in homes.values():
            with suppress(RuntimeError):  # its loop has ended: nobody waits any more
                home.from_thread(_Told(waiting, error))

    def _append(self, group: list[_Entry]) -> StoreError | None:
        places = [entry.place for entry in group if entry.place is not None]
        records = [entry.record for entry in group]
        return self._with_grace(lambda: self._backend.append(places, records))

    def _with_grace(self, write: Callable[[], None]) -> StoreError | None:
        """Write, and write again while that may help; at last remember and return why it did not."""
        until, pause = 0.0, 0.05
        while True:
            try:
                write()
            except (RunLostError, StoreLockedError):  # of one run: that does not concern the others
                self.trouble = None
                raise
            except Exception as exc:
                now = time.monotonic()
                until = until or now + self._grace
                if now < until and self._backend.retryable(exc):
                    if self.trouble is None:
                        _log.warning(
                            "asyncflow: %r cannot be written to now: %s; trying again for %.0f s",
                            self._store,
                            _reason(exc),
                            self._grace,
                        )
                    self.trouble = exc
                    time.sleep(min(pause, until - now))
                    pause = min(1.0, pause * 2)
                    continue
                self._error = StoreError(
                    f"{self._store!r} cannot be written to: {_reason(exc)}. The run stops; what was "
                    "committed before is whole, and the same command resumes"
                )
                self._error.__cause__ = exc
                self.trouble = exc
                return self._error
            self.trouble = None
            return None

    def _answer(self, call: _Call) -> None:
        try:
            if self._error is not None:
                raise self._error

            def answer() -> None:
                call.value = call.function(self._backend)

            if not call.again:
                answer()
            elif (error := self._with_grace(answer)) is not None:
                raise error
        except BaseException as exc:
            call.error = exc
            if call.failed is not None:
                call.failed(exc)
        call.done.set()

    def _after_fork(self) -> None:
        self._forked = True
        if not self._given_up:
            self._backend.abandon()


_NOTHING: Any = object()
_NO_MARKS = NoMarks()
_FORKED = (
    "this store was opened before the process forked: the child must not write to it. "
    "Open it in the child, with a file of its own, or start processes with spawn"
)


class _Told:
    """Tells those who waited for a group, on their own loop."""

    __slots__ = ("_error", "_waiting")

    def __init__(self, waiting: list[Committed], error: BaseException | None) -> None:
        self._waiting = waiting
        self._error = error

    def __call__(self) -> None:
        for committed in self._waiting:
            committed(self._error)


def _reason(error: BaseException) -> str:
    return " ".join(str(getattr(error, "orig", None) or error).split()) or type(error).__name__


# Sharing ---------------------------------------------------------------------------------------------------

#: By the store's key, those that work.
_shared: dict[str, Writer] = {}
#: How many use each, those that have failed too.
_users: dict[Writer, int] = {}
#: One for each store, while somebody has it: opening one and closing one take their time.
_locks: WeakValueDictionary[str, Any] = WeakValueDictionary()
_locks_lock = threading.Lock()


def _lock_of(store: Store) -> Any:
    with _locks_lock:
        return _locks.setdefault(store.key, threading.Lock())


def share(store: Store, *, grace: float = GRACE) -> Writer:
    """The writer of this store in this process, opened if nobody has. Blocks. Give it back by `unshare`.

    One that has failed is replaced: its users keep it and hear why, and the store has a new one from here on.
    """
    with _lock_of(store):
        writer = _shared.get(store.key)
        if writer is not None and writer.failed:
            del _shared[store.key]
            writer.give_up()
            writer = None
        if writer is None:
            writer = _shared[store.key] = Writer(store, grace=grace)
        _users[writer] = _users.get(writer, 0) + 1
        return writer


def unshare(store: Store, writer: Writer) -> None:
    """The last one to give it back closes it. Blocks."""
    with _lock_of(store):
        if writer not in _users:
            return  # a forked child leaves its parent's block
        _users[writer] -= 1
        if _users[writer]:
            return
        del _users[writer]
        if _shared.get(store.key) is writer:
            del _shared[store.key]
        writer.close()


def _after_fork() -> None:
    global _locks_lock
    for writer in _users:
        writer._after_fork()
    _shared.clear()
    _users.clear()
    _locks.clear()
    _locks_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
