"""What the workers of a pool take next, and when they take nothing more.

Three ways lead to a worker: an item of the source, one whose wait between two attempts is over, and one that
was kept aside until no other runs. Where a source answers on the spot and nothing else waits, the worker asks
it itself (`take`); everything else is a detour, by way of `next`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from asyncflow.engine.alone import Turns
from asyncflow.engine.context import Run
from asyncflow.engine.parking import Parked, Parking
from asyncflow.engine.source import END, Source
from asyncflow.engine.tasks import Waker


class Intake:
    """See the module.

    Args:
        source: Where items come from; the pool closes it.
        run: The run that the pool is part of.
        concurrency: How many items may be parked before nothing more is taken from the source.
        window: How many items may be started and not yet received; None: any number.
        results: A list that grows by a None with each item that is started, or None.
        drain: Called where the run turns out to be asked to stop.

    Attributes:
        take: Asks for the next item on the spot; raises StopIteration at the end. Only without a detour.
        detour: Whether the next item cannot simply be taken. Kept by `review`, so that the hot path makes
            one test.
        started: How many items were taken from the source, which is the next one's index.
        until: Taking from the source stops at this many started items.
        exhausted: Whether nothing more is taken from the source.
        pulling: Whether a worker waits for the source.
        parking: The items between two attempts.
    """

    __slots__ = (
        "_concurrency",
        "_drain",
        "_full",
        "_host",
        "_idle",
        "_results",
        "_source",
        "_stop",
        "_turns",
        "detour",
        "exhausted",
        "parking",
        "pulling",
        "started",
        "take",
        "until",
    )

    def __init__(
        self,
        source: Source,
        run: Run,
        concurrency: int,
        *,
        window: int | None,
        results: list[Any] | None,
        drain: Callable[[], None],
    ) -> None:
        self._source = source
        self._host = run.host
        self._stop = run.stop
        self._concurrency = concurrency
        self._results = results
        self._drain = drain
        self._idle: deque[Waker] = deque()
        self._turns: Turns | None = None
        self._full = False
        self.parking = Parking(run.host, self._came_due)
        self.exhausted = False
        self.pulling = False
        self.started = 0
        self.until: float = math.inf if window is None else window
        take = source.next if source.next is not None else _nothing
        self.take = take if run.stop is None else partial(self._unless_stopped, take)
        self.detour = source.next is None

    def leaves(self) -> bool:
        """Whether an item is left that was not begun, or not begun again, when nothing more begins."""
        if self.parking or self._turns:
            return True
        if self._source.length is not None:
            return not self.exhausted and self.started < self._source.length
        return not self.exhausted and not self._has_ended()

    def _has_ended(self) -> bool:
        """Whether the source gives no more, which only asking tells. What it gives is let go, as is what it
        was asked for when the run was stopped. One that may wait is not asked: nobody would wait for it."""
        if self._source.next is None or self._host.blocking:
            return False
        try:
            self._source.next()
        except StopIteration:
            return True
        except Exception:  # the run is stopped, whatever became of its source
            return False
        return False

    def over(self) -> bool:
        """Whether no worker will find another item. Those that wait for one are told."""
        if not self.exhausted or self.parking or self._turns:
            return False
        self.wake_all()
        return True

    def end(self) -> None:
        """Nothing more is taken from the source."""
        self.exhausted = True
        self.review()

    def park(self, parked: Parked, wait: float) -> None:
        """An item comes back for its next attempt, in `wait` seconds."""
        self.parking.park(parked, wait)
        self.review()

    def hold_back(self, full: bool) -> None:
        """Take nothing from the source while so many outcomes wait for their commit."""
        self._full = full
        self.review()

    def keep_aside(self, turns: Turns) -> None:
        """The run has suspects: items may have to wait until no other runs."""
        self._turns = turns
        self.review()

    def halt(self) -> int:
        """Nothing begins any more: neither new items nor parked ones. Returns how many that gives up."""
        given_up = self.parking.halt() + (self._turns.give_up() if self._turns is not None else 0)
        self.end()
        return given_up

    def close(self) -> None:
        """The pool is done."""
        self.parking.close()
        del self.take, self._drain

    async def next(self) -> Parked | None:
        """The next item by the longer way; None: there will be none, or the run was asked to stop.

        Raises:
            What the source raises.
        """
        while not self._asked_to_stop() and not self.over():
            if self.parking.due:
                parked = self.parking.take()
                self.review()
                self.wake_one()  # fewer are parked: there may be room for one more from the source
                return parked
            if self._turns and (kept := self._turns.next()) is not None:
                return kept
            room = (
                self.started < self.until
                and len(self.parking) < self._concurrency
                and not self._full
                and not (self._turns is not None and self._turns.closed)
            )
            if self.exhausted or self.pulling or not room:
                await self._wait()
                continue
            self.pulling = True
            try:
                item = await self._source.pull()
            finally:
                self.pulling = False
                self.wake_one()
            if item is END:
                self.end()
                continue
            if self._asked_to_stop() or self.exhausted:  # meanwhile: nothing more begins
                return None
            index, self.started = self.started, self.started + 1
            if self._results is not None:
                self._results.append(None)
            return Parked(index, item, 1, math.inf)
        return None

    # The run may be asked to stop at any moment.

    def _asked_to_stop(self) -> bool:
        """Asked before each item is begun: who calls `drain` is the host, and it may have had no turn yet."""
        if self._stop is None or not self._stop.asked:
            return False
        self._drain()
        return True

    def _unless_stopped(self, take: Callable[[], Any]) -> Any:
        if self._asked_to_stop():
            raise StopIteration
        return take()

    # Workers that wait for an item.

    async def _wait(self) -> None:
        """Until something may have changed for `next`."""
        waker = self._host.waker()
        self._idle.append(waker)
        try:
            await waker.wait()
        finally:
            if waker in self._idle:
                self._idle.remove(waker)

    def wake_one(self) -> None:
        if self._idle:
            self._idle.popleft().set()

    def wake_all(self) -> None:
        while self._idle:
            self._idle.popleft().set()

    def _came_due(self, count: int) -> None:
        for _ in range(count):
            self.wake_one()
        self.review()

    def review(self) -> None:
        """See what the next item takes, after anything that bears on it has changed."""
        self.detour = bool(
            self._source.next is None
            or self._turns is not None
            or self.exhausted
            or self._full
            or self.parking.due
            or len(self.parking) >= self._concurrency
        )


def _nothing() -> Any:
    raise StopIteration
