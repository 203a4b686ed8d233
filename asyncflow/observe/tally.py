"""Counting events: what each node has done, as numbers that any display can show."""

from __future__ import annotations

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
    """One node's numbers. Counts are of items.

    Attributes:
        total: How many there are, or None where that is not known.
        done, failed: How those that ended did.
        running, waiting, retrying: Where the others are: at work, at work but only waiting, between attempts.
        began, ended: Moments on the run's clock; `ended` is None while it runs.
    """

    path: tuple[str, ...]
    total: int | None = None
    done: int = 0
    failed: int = 0
    retrying: int = 0
    began: float = 0.0
    ended: float | None = None
    last: float = 0.0
    _running: set[int] = field(default_factory=set)
    _waiting: set[int] = field(default_factory=set)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def finished(self) -> int:
        """Items that have ended, well or not."""
        return self.done + self.failed

    def rate(self, now: float) -> float:
        """Items per second since the start."""
        seconds = (self.ended or now) - self.began
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
            node = self.nodes.get(event.path)
            if node is None or (node.ended is not None and node.total is None):
                node = self.nodes[event.path] = NodeTally(event.path, event.total, began=event.at)
            elif event.total is not None:  # the same node again, in another run of its flow
                node.total = (node.total or 0) + event.total
                node.ended = None
            return
        path = getattr(event, "path", None)
        node = self.nodes.get(path) if path is not None else None
        if node is None:
            return
        node.last = event.at
        if isinstance(event, ItemStarted):
            node._running.add(event.index)
            node.retrying -= event.attempt > 1
        elif isinstance(event, ItemRetrying):
            node._running.discard(event.index)
            node.retrying += 1
        elif isinstance(event, ItemWaiting):
            node._waiting.add(event.index)
        elif isinstance(event, ItemResumed):
            node._waiting.discard(event.index)
        elif isinstance(event, ItemFinished):
            outcome = event.outcome
            node._running.discard(outcome.index)
            node._waiting.discard(outcome.index)
            node.done += isinstance(outcome, Ok)
            node.failed += isinstance(outcome, Failed)
        elif isinstance(event, NodeFinished):
            node.ended = event.at
