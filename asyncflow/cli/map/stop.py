"""How a run is stopped early without a loss: by a signal, or by a provider that is given up."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio

from asyncflow.cli.map.rows import Row
from asyncflow.errors import AccessDeniedError
from asyncflow.events import Event, LaneStopped
from asyncflow.policy.limits import Limits

#: Exit codes of the signals that stop a run.
SIGNALS = {"SIGINT": 130, "SIGTERM": 143}

#: In the place of an answer: the row was not asked, or cut off, because all of it was stopped.
STOPPED = "stopped"


class Stop:
    """Ends a run early. Calls in flight are cut off, no row is begun; what is answered is still delivered.

    Attributes:
        reason: Why, in a word, or None while it goes on.
        error: What made it stop, if something did.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.error: BaseException | None = None
        self._scopes: set[anyio.CancelScope] = set()

    def __call__(self, reason: str, error: BaseException | None = None) -> None:
        if self.reason is None:
            self.reason, self.error = reason, error
            for scope in self._scopes:
                scope.cancel()

    def until(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows, until it is stopped."""
        for row in rows:
            if self.reason is not None:
                return
            yield row

    async def cut_off(self, call: Any) -> Any:
        """What the coroutine returns, or STOPPED."""
        if self.reason is not None:
            call.close()
            return STOPPED
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                return await call
            finally:
                self._scopes.discard(scope)
        return STOPPED


@contextmanager
def stopped_lane(stop: Stop) -> Iterator[None]:
    """Where the client gives its provider up, for all calls at once, there is no point in going on."""

    def told(event: Event) -> None:
        if isinstance(event, LaneStopped):
            stop("denied" if isinstance(event.error, AccessDeniedError) else "unreachable", event.error)

    end = Limits.of_loop().listen(told)
    try:
        yield
    finally:
        end()


@contextmanager
def signals(stop: Stop) -> Iterator[None]:
    """Ctrl-C and SIGTERM stop it without a loss; a second Ctrl-C is Python's own."""
    loop = asyncio.get_running_loop()

    def ask_to_stop(name: str) -> None:
        stop(name)
        restore()

    def restore() -> None:
        for name in SIGNALS:
            loop.remove_signal_handler(getattr(signal, name))

    try:
        for name in SIGNALS:
            loop.add_signal_handler(getattr(signal, name), ask_to_stop, name)
    except (NotImplementedError, RuntimeError, ValueError):  # Windows; a thread that is not the main one
        yield
        return
    try:
        yield
    finally:
        restore()
