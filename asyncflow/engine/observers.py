"""Tells observers what happens, on a thread of its own, so that none of them can slow or break a run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import TypeAlias

from asyncflow.clock import SYSTEM
from asyncflow.engine.checks import is_async
from asyncflow.engine.tasks import Host
from asyncflow.events import Event, EventsDropped

Observer: TypeAlias = Callable[[Event], object]

#: Events that may wait for observers; beyond that they are dropped and counted.
BACKLOG = 100_000
#: Seconds that the end of a run waits for observers to catch up.
GRACE = 2.0

_log = logging.getLogger("asyncflow")


def check_observers(observers: object) -> tuple[Observer, ...]:
    """The observers as a tuple.

    Raises:
        TypeError: If one cannot be called with an event, is a class, or is a coroutine function.
    """
    if callable(observers):
        raise TypeError(f"observers={observers!r}: give a list of observers: [{observers!r}]")
    if not isinstance(observers, Iterable):
        raise TypeError(f"observers={observers!r}: give a list of functions that take one event")
    found = tuple(observers)
    for observer in found:
        if isinstance(observer, type):
            raise TypeError(f"the observer {observer.__name__} is a class; make an instance of it")
        if not callable(observer):
            raise TypeError(f"the observer {observer!r} is not a function that takes one event")
        if is_async(observer):
            raise TypeError(
                f"the observer {observer!r} is a coroutine function; observers are plain functions, called "
                "on a thread of their own"
            )
    return found


class Broadcast:
    """One run's observers and the thread they are called on.

    An observer that raises is told nothing more; the run goes on, and a warning is logged.
    """

    def __init__(self, observers: tuple[Observer, ...]) -> None:
        self._observers = list(observers)
        self._queue: SimpleQueue[Event | None] = SimpleQueue()
        self._dropped = 0
        self._on_end: Callable[[], None] | None = None
        threading.Thread(target=self._run, name="asyncflow-observers", daemon=True).start()

    def tell(self, event: Event) -> None:
        """Queue an event; never waits."""
        if self._queue.qsize() < BACKLOG:
            self._queue.put(event)
        else:
            self._dropped += 1

    async def aclose(self, host: Host) -> None:
        """Wait until all is told, but no longer than the grace."""
        waker = host.waker()
        self._on_end = lambda: host.from_thread(waker.set)
        cancel = SYSTEM.call_later(GRACE, waker.set)  # real time: what is waited for is a thread
        if self._dropped:
            self._queue.put(EventsDropped(host.now(), self._dropped))
        self._queue.put(None)
        try:
            await waker.wait()
        finally:
            cancel()

    def _run(self) -> None:
        while (event := self._queue.get()) is not None:
            for observer in tuple(self._observers):
                try:
                    observer(event)
                except BaseException:
                    self._observers.remove(observer)
                    _log.warning(
                        "asyncflow: the observer %r raised and is told nothing more", observer, exc_info=True
                    )
        if self._on_end is not None:
            try:
                self._on_end()
            except RuntimeError:
                return  # the loop has ended; nobody waits
