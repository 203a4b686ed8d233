"""A provider that is given up, for all calls at once, ends the run: there is no point in going on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from asyncflow.engine.stopping import Stop
from asyncflow.errors import AccessDeniedError
from asyncflow.events import Event, LaneStopped
from asyncflow.policy.limits import Limits


@contextmanager
def stopped_lane(stop: Stop) -> Iterator[None]:
    """Ask `stop`, with the reason `"denied"` or `"unreachable"`, where a client of this loop gives up."""

    def told(event: Event) -> None:
        if isinstance(event, LaneStopped):
            denied = isinstance(event.error, AccessDeniedError)
            stop.request("denied" if denied else "unreachable", event.error)

    end = Limits.of_loop().listen(told)
    try:
        yield
    finally:
        end()
