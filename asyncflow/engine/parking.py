"""Items between two attempts: kept in a heap, so that no worker stands still for them."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asyncflow.engine.tasks import Host
from asyncflow.outcome import Spent


@dataclass(slots=True)
class Parked:
    """An item that waits for its next attempt, or, not parked, one that is about to have its first.

    Attributes:
        attempt: The attempt to come, from 1.
        total_deadline: When all attempts together have to be over.
        spent: What its attempts so far have cost, as far as told.
        at: When it comes due; set by `Parking`.
    """

    index: int
    item: Any
    attempt: int
    total_deadline: float
    key: bytes = b""
    spent: Spent | None = None
    at: float = math.inf


class Parking:
    """The items between attempts, and one timer for the earliest of them.

    Args:
        came_due: Called with how many items have just come due.

    Attributes:
        due: Those whose wait is over, first come first served. Emptied by `take`.
        halted: Nothing is kept any more.
    """

    __slots__ = ("_came_due", "_cancel", "_host", "_look_at", "_waiting", "due", "halted")

    def __init__(self, host: Host, came_due: Callable[[int], None]) -> None:
        self.due: deque[Parked] = deque()
        self.halted = False
        self._host = host
        self._came_due = came_due
        self._waiting: list[tuple[float, int, Parked]] = []
        self._look_at = math.inf
        self._cancel: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._waiting) + len(self.due)

    def park(self, parked: Parked, wait: float) -> None:
        """Keep an item for `wait` seconds; no wait, and it is due at once."""
        if self.halted:
            return
        parked.at = self._host.now() + wait
        if wait <= 0:
            self.due.append(parked)
        else:
            heapq.heappush(self._waiting, (parked.at, parked.index, parked))
            self._watch()

    def take(self) -> Parked:
        """The next item that is due. What it queued since then is no part of its total timeout."""
        parked = self.due.popleft()
        parked.total_deadline += self._host.now() - parked.at
        return parked

    def halt(self) -> int:
        """Give up all that are here, and all that may still come. Returns how many were here."""
        self._unwatch()
        self.halted = True
        count = len(self)
        self._waiting.clear()
        self.due.clear()
        return count

    def close(self) -> None:
        """Let go of the timer, and of who is told."""
        self._unwatch()
        del self._came_due

    def _unwatch(self) -> None:
        if self._cancel is not None:
            self._cancel()
            self._cancel = None

    def _watch(self) -> None:
        at = self._waiting[0][0] if self._waiting else math.inf
        if at < self._look_at:
            self._unwatch()
            self._look_at = at
            self._cancel = self._host.call_later(at - self._host.now(), self._look)

    def _look(self) -> None:
        self._look_at, self._cancel = math.inf, None
        now, count = self._host.now(), 0
        while self._waiting and self._waiting[0][0] <= now:
            self.due.append(heapq.heappop(self._waiting)[2])
            count += 1
        self._came_due(count)
        self._watch()
