"""How a run is asked to end early without losing what it has paid for.

A `Stop` is handed to the doors (`stop=`) and asked by anybody: a signal handler, another thread, the
program. Asked to stop, a run starts no item and no further attempt, and lets those in flight end; after the
grace, or when it is told to cancel, it cuts them off. Either way it ends with a RunStoppedError, unless
nothing was left to do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from asyncflow.engine.journal import GRACE
from asyncflow.engine.tasks import Expired, Host
from asyncflow.errors import RunStoppedError

if TYPE_CHECKING:
    from asyncflow.engine.context import Run

T = TypeVar("T")


class Halted(BaseException):
    """Something was left to do when the run was asked to stop. Its door turns it into a RunStoppedError."""


class Stop:
    """A way to end runs early. One object serves any number of runs, at the same time or in turn.

    Args:
        grace: Seconds that items in flight have to end in, once it is asked to stop.

    Attributes:
        reason: Why it was asked, in a word (`"SIGINT"`), or None while nobody has asked.
        error: What made somebody ask, if something did.
        asked: Whether anybody has asked.

    A run that is begun afterwards ends at once. What runs inside an `exec` of a run is part of that `exec`:
    it may end, unless it was given a `Stop` of its own.

    Guarantees: after `request` no item and no attempt begins, but for those whose start is under way on
    another thread. Not: that a plain `exec` ends within the grace; a thread cannot be stopped.

    Example:
        >>> import asyncio
        >>> from asyncflow import stream
        >>> from asyncflow.errors import RunStoppedError
        >>> async def main():
        ...     stop, seen = Stop(grace=5), []
        ...     async def work(item):
        ...         return item
        ...     try:
        ...         async for outcome in stream(work, range(1000), concurrency=1, stop=stop):
        ...             seen.append(outcome.value)
        ...             stop.request("enough")
        ...     except RunStoppedError as error:
        ...         return len(seen) < 10, error.reason
        >>> asyncio.run(main())
        (True, 'enough')
    """

    def __init__(self, *, grace: float = GRACE) -> None:
        if isinstance(grace, bool) or not isinstance(grace, (int, float)) or not grace >= 0:
            raise ValueError(f"grace={grace!r}: it is a number of seconds from 0")
        self.grace = float(grace)
        self.reason: str | None = None
        self.error: BaseException | None = None
        self.cancelled = False
        self._listeners: dict[object, tuple[Host, Callable[[], None]]] = {}

    @property
    def asked(self) -> bool:
        return self.reason is not None

    def request(self, reason: str = "stopped", error: BaseException | None = None) -> None:
        """Begin nothing more; what is in flight may end within the grace. From any thread, or a signal
        handler. Asked again, it changes nothing."""
        if self.reason is None:
            self.reason, self.error = reason, error
            self._tell()

    def cancel(self, reason: str = "stopped", error: BaseException | None = None) -> None:
        """As `request`, and what is in flight is cut off now."""
        if self.reason is None:
            self.reason, self.error = reason, error
        if not self.cancelled:
            self.cancelled = True
            self._tell()

    def listen(self, host: Host, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called on its host when it is asked to stop, and when it is told to cancel; at once
        where that has happened. Returns how to end it."""

        def call() -> None:
            if token in self._listeners:
                callback()

        token = object()
        self._listeners[token] = host, call
        if self.asked:
            call()
        return lambda: self._listeners.pop(token, None) and None

    def _tell(self) -> None:
        for host, call in tuple(self._listeners.values()):
            with suppress(RuntimeError):  # its loop has ended
                host.from_thread(call)

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled else "asked" if self.asked else "not asked"
        why = f": {self.reason}" if self.asked else ""
        return f"<Stop {state}{why}, grace {self.grace:g} s, {len(self._listeners)} listening>"


def check_stop(value: object) -> Stop | None:
    """`value` as a Stop, or None.

    Raises:
        TypeError: If it is anything else.
    """
    if value is None or isinstance(value, Stop):
        return value
    raise TypeError(f"stop={value!r}: give a Stop, such as stop = Stop(grace=10)")


async def stoppable(run: Run, name: str, work: Callable[[], Awaitable[T]]) -> T:
    """What `work()` returns, which the run's `Stop` may end early. In the task that drives the run.

    Raises:
        RunStoppedError: If it was asked to stop, and something was left to do.
    """
    stop, host = run.stop, run.host
    if stop is None:
        return await work()
    interrupt, cancel_timer = host.interrupt(), _nothing
    fired = False

    def fire() -> None:
        nonlocal fired
        if not fired:
            fired = True
            interrupt.fire()

    def heard() -> None:
        nonlocal cancel_timer
        if stop.cancelled:
            fire()
        elif cancel_timer is _nothing:
            cancel_timer = host.call_later(stop.grace, fire)

    async def guarded(_: Any) -> T:
        if stop.asked:
            raise Halted
        return await work()

    deaf = stop.listen(host, heard) if not stop.asked else _nothing
    try:
        value: T = await interrupt.run(guarded, None)
        return value
    except (Halted, Expired):
        raise _stopped(stop, run, name) from stop.error
    finally:
        deaf()
        cancel_timer()


def _nothing() -> None:
    pass


def _stopped(stop: Stop, run: Run, name: str) -> RunStoppedError:
    done = run.counts.statistics()
    text = f"{name} was stopped ({stop.reason}): {done.succeeded:,} items done, {done.cancelled:,} given up"
    run_id = run.journal.run_id if run.journal is not None else None
    if run_id is None:
        text += ". Without a store nothing of it is kept"
    else:
        text += f". What is done is kept: the same call with run_id={run_id!r} goes on"
    return RunStoppedError(text, reason=stop.reason or "", run_id=run_id)
