"""A line of waiters, first come first served, with one timer for its head: the waiting shell of the rules.

Ten thousand waiters cost one timer, and each that may go costs one wake: nobody is woken to look whether it
is its turn.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from asyncflow import clock
from asyncflow.clock import Cancel

E = TypeVar("E", bound=Hashable)


class Line(Generic[E]):
    """Waiters of one event loop.

    Args:
        admit: `admit(entry, now)` is asked about the head. It lets the entry go by returning None, and has
            then charged whatever that costs; else it returns the moment at which to ask again, `inf` if only
            a call of `move` can change anything.
    """

    __slots__ = ("_admit", "_armed", "_cancel", "_clock", "_loop", "_queue")

    def __init__(self, admit: Callable[[E, float], float | None]) -> None:
        self._admit = admit
        self._queue: OrderedDict[E, Callable[[], None]] = OrderedDict()
        self._clock = clock.SYSTEM
        self._loop: object = None
        self._armed = float("inf")
        self._cancel: Cancel | None = None

    def __len__(self) -> int:
        return len(self._queue)

    async def wait(self, entry: E) -> None:
        """Wait until `admit` has let the entry go, or `dissolve` has sent everybody away.

        A cancel point. Cancelled, the entry leaves the line; where `admit` had let it go just before, the
        caller has to give back.

        Raises:
            RuntimeError: If others wait here in another event loop.
        """
        loop = clock.running_loop()
        if self._queue and loop != self._loop:
            raise RuntimeError(
                "these limits are in use in another event loop: give each loop a Limits of its own"
            )
        if not self._queue:
            self._disarm()  # a timer of a loop that has ended would never fire
            self._loop = loop
            self._clock = clock.current()
        self._queue[entry], woken = clock.parking()
        if len(self._queue) == 1:
            self.move()
        try:
            await woken
        except BaseException:
            if self._queue.pop(entry, None) is not None:
                self.move()
            raise

    def move(self) -> None:
        """Let go whoever may go, and set the timer for the next. Call it when something has changed."""
        now = self._clock.now()
        while self._queue:
            entry = next(iter(self._queue))
            again = self._admit(entry, now)
            if again is not None:
                self._arm(again, now)
                return
            wake = self._queue.pop(entry, None)
            if wake is not None:  # None: what admit did has dissolved the line
                wake()
        self._disarm()

    def dissolve(self) -> list[E]:
        """Send everybody away and return them; what they are told is the caller's business."""
        gone, self._queue = self._queue, OrderedDict()
        self._disarm()
        for wake in gone.values():
            wake()
        return list(gone)

    def _arm(self, when: float, now: float) -> None:
        # A timer that is set too early only asks once more; setting it anew each time costs more than that.
        if when == float("inf") or now < self._armed <= when:
            return
        self._disarm()
        self._armed = when
        self._cancel = self._clock.call_later(max(0.0, when - now), self._ring)

    def _ring(self) -> None:
        self._armed = float("inf")
        self._cancel = None
        self.move()

    def _disarm(self) -> None:
        cancel, self._cancel = self._cancel, None
        self._armed = float("inf")
        if cancel is not None:
            cancel()
