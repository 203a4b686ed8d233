"""What the progress is told: the engine's events, and those of them that only the client knows about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from asyncflow.events import (
    Event,
    ItemFinished,
    ItemResumed,
    ItemRetrying,
    ItemStarted,
    ItemWaiting,
    NodeStarted,
)

_WHY = Exception("the client tries again")


class Shown:
    """An observer in front of a display.

    The client repeats failed requests itself, which for the engine is a row that waits; here it becomes a row
    between two attempts. And the rows of a file have no length, but they have been counted.

    Args:
        display: Told what becomes of it.
        rows: How many there are.
    """

    def __init__(self, display: Callable[[Event], object], rows: int) -> None:
        self._display = display
        self._rows = rows
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
        elif isinstance(event, ItemFinished):
            self._failed.pop(event.outcome.index, None)
        self._display(event)
