"""Counting events: what each node has done, as numbers that any display can show."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from asyncflow.events import (
    Event,
    ItemFinished,
    ItemResumed,
    ItemRetrying,
    ItemStarted,
    ItemWaiting,
    NodeFinished,
    NodeStarted,
)
from asyncflow.outcome import Failed, Ok


@dataclass(slots=True)
class NodeTally:
    """One node's numbers, of all its visits together: a loop, and each run of a batch flow, visits it again.

    Counts are of items.

    Attributes:
        total: How many there are, as far as the visits have begun, or None where that is not known.
        done, failed, skipped: How those that ended did.
        running, waiting, retrying: Where the others are: at work, of those at work how many only wait,
            between attempts.
        ended: The moment on the run's clock when no visit was left; None while there is one.
        stopped: Whether a visit ended with an error.
    """

    path: tuple[str, ...]
    total: int | None = 0
    done: int = 0
    failed: int = 0
    skipped: int = 0
    ended: float | None = None
    stopped: bool = False
    # Visits at the same time number their items alike, so an index can stand for several items.
    _running: Counter[int] = field(default_factory=Counter)
    _waiting: Counter[int] = field(default_factory=Counter)
    _retrying: Counter[int] = field(default_factory=Counter)
    _visits: int = 0
    _began: float = 0.0
    _spent: float = 0.0

    @property
    def running(self) -> int:
        return self._running.total()

    @property
    def waiting(self) -> int:
        return self._waiting.total()

    @property
    def retrying(self) -> int:
        return self._retrying.total()

    @property
    def finished(self) -> int:
        """Items that have ended, well or not."""
        return self.done + self.failed + self.skipped

    def seconds(self, now: float) -> float:
        """Time during which the node was being visited."""
        return self._spent + (now - self._began if self.ended is None else 0.0)

    def rate(self, now: float) -> float:
        """Items per second while it was being visited."""
        seconds = self.seconds(now)
        return self.finished / seconds if seconds > 0 else 0.0

    def left(self, now: float) -> float | None:
        """Seconds until the end at the rate so far, or None where it cannot be said."""
        rate = self.rate(now)
        if self.total is None or not rate:
            return None
        return max(0.0, (self.total - self.finished) / rate)


class Tally:
    """An observer that counts, node by node. Only nodes that have items of their own are kept.

    Example:
        >>> tally = Tally()
        >>> tally(NodeStarted(("translate",), 0.0, 2, 1))
        >>> tally(ItemFinished(("translate",), 1.0, Ok("hallo")))
        >>> tally.nodes[("translate",)].left(now=1.0)
        1.0
    """

    def __init__(self) -> None:
        self.nodes: dict[tuple[str, ...], NodeTally] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, NodeStarted):
            node = self.nodes.setdefault(event.path, NodeTally(event.path))
            node.total = None if node.total is None or event.total is None else node.total + event.total
            if not node._visits:
                node._began, node.ended = event.at, None
            node._visits += 1
            return
        path = getattr(event, "path", None)
        found = self.nodes.get(path) if path is not None else None
        if found is not None:
            _count(found, event)


def _count(node: NodeTally, event: Event) -> None:
    if isinstance(event, ItemStarted):
        if event.attempt > 1:
            _less(node._retrying, event.index)
        node._running[event.index] += 1
    elif isinstance(event, ItemRetrying):
        _less(node._running, event.index)
        node._retrying[event.index] += 1
    elif isinstance(event, ItemWaiting):
        node._waiting[event.index] += 1
    elif isinstance(event, ItemResumed):
        _less(node._waiting, event.index)
    elif isinstance(event, ItemFinished):
        outcome = event.outcome
        # Its total time may have run out while it was parked: then it ends without another start.
        _less(node._running if outcome.index in node._running else node._retrying, outcome.index)
        if isinstance(outcome, Ok):
            node.done += 1
        elif isinstance(outcome, Failed):
            node.failed += 1
        else:
            node.skipped += 1
    elif isinstance(event, NodeFinished):
        node.stopped |= event.error is not None
        node._visits -= 1
        if not node._visits:
            node._spent += event.at - node._began
            node.ended = event.at
            for items in (node._running, node._waiting, node._retrying):
                items.clear()  # items that were cancelled have no last event


def _less(items: Counter[int], index: int) -> None:
    if items[index] > 1:
        items[index] -= 1
    else:
        del items[index]
