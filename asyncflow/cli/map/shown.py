"""What the progress is told: the engine's events, and those of them that only the client knows about."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from asyncflow.cli.map.turns import NotAskedError
from asyncflow.events import (
    Event,
    ItemFinished,
    ItemResumed,
    ItemRetrying,
    ItemStarted,
    ItemWaiting,
    LanePaused,
    NodeFinished,
    NodeStarted,
)
from asyncflow.outcome import Skipped

_WHY = Exception("the client tries again")

#: Shorter pauses are not told, and not more than one in so many seconds.
_PAUSE, _QUIET = 2.0, 10.0


class Shown:
    """An observer in front of a display.

    The client repeats failed requests itself, which for the engine is a row that waits; here it becomes a row
    between two attempts. And the rows of a file have no length, but they have been counted.

    Args:
        display: Told what becomes of it.
        rows: How many there are.
        tell: Told in words why nothing is sent for a while.
    """

    def __init__(
        self, display: Callable[[Event], object], rows: int, tell: Callable[[str], object] = lambda text: None
    ) -> None:
        self._display = display
        self._rows = rows
        self._tell = tell
        self._quiet_until = 0.0
        self._given_up: Any = None
        self._failed: dict[int, int] = {}  # by row: how many of its attempts
        self._retrying: set[int] = set()

    def __call__(self, event: Event) -> None:
        if isinstance(event, NodeStarted):
            event = replace(event, total=self._rows)
        elif isinstance(event, ItemWaiting) and event.reason == "retry":
            self._retrying.add(event.index)
            attempt = self._failed[event.index] = self._failed.get(event.index, 0) + 1
            event = ItemRetrying(event.path, event.at, event.index, attempt, 0.0, _WHY)
        elif isinstance(event, ItemResumed) and event.index in self._retrying:
            self._retrying.remove(event.index)
            event = ItemStarted(event.path, event.at, event.index, self._failed[event.index] + 1)
        elif isinstance(event, LanePaused):
            if event.seconds >= _PAUSE and event.at >= self._quiet_until:
                self._quiet_until = event.at + _QUIET
                self._tell(f"nothing is sent for {event.seconds:.0f} s: {event.reason}")
        elif isinstance(event, ItemFinished):
            self._failed.pop(event.outcome.index, None)
            if isinstance(event.outcome, Skipped) and event.outcome.reason == NotAskedError.reason:
                self._given_up = event.outcome.reason  # it has not ended: it is asked next time
                return
        elif isinstance(event, NodeFinished) and event.error is None:
            event = replace(event, error=self._given_up)
        self._display(event)


@contextmanager
def lanes_unlogged() -> Iterator[None]:
    """In this block the log has nothing of a provider that fails, because `Shown` tells it."""
    log = logging.getLogger("asyncflow")

    def of_others(record: logging.LogRecord) -> bool:
        return record.module != "lane"

    log.addFilter(of_others)
    try:
        yield
    finally:
        log.removeFilter(of_others)
