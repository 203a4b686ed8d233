"""What a refusal (429) means for everybody: one pause for each wave of refusals, and a gentle wake.

A wave is all the refusals of calls that started before its first one was heard of: forty calls refused at
once are one piece of news. An episode is waves with nothing served in between of what started after the
first: the same storm still, so where the server does not say how long to wait, each pause is twice the last.
Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

#: Seconds of the first pause where the server says nothing (and, where its calls are shorter than that, at
#: least), and of the longest: a storm costs one call in so many seconds.
_SHORTEST, _LEAST, _LONGEST = 0.5, 0.05, 15.0
#: A server may ask for more; after so long, one call finds out.
LONGEST_ASKED = 3600.0
#: What is added to a pause: up to this share of it, and up to so many seconds. Other processes wake too.
_JITTER, _MOST_JITTER = 0.1, 1.0
#: The calls that a pause held back start over this share of it, at least and at most so many seconds.
_RAMP, _SHORTEST_RAMP, _LONGEST_RAMP = 0.25, 0.25, 5.0


@dataclass(frozen=True, slots=True)
class Wave:
    """A wave of refusals has begun.

    Attributes:
        seconds: The pause that it asks for; 0 where it asks for none.
        first: Whether an episode begins with it.
    """

    seconds: float
    first: bool


class Pause:
    """Which refusals belong together, and until when nothing starts.

    Calls are known by the number of their start, counted from 1 without gaps.

    Example:
        >>> pause = Pause(lambda: 0.0)
        >>> pause.refused(10.0, call=5, newest=40, asked=2.0)
        Wave(seconds=2.0, first=True)
        >>> pause.refused(10.1, call=6, newest=40, asked=2.0) is None
        True
        >>> round(pause.until, 9)
        12.1
    """

    __slots__ = ("_newest", "_row", "_served", "_since", "_uniform", "until", "waves")

    def __init__(self, uniform: Callable[[], float]) -> None:
        self._uniform = uniform
        self._newest = 0  # the newest call when the last wave began
        self._since = 0  # the newest call when the last episode began
        self._served = True  # something that started since then
        self._row = 0  # waves since something was served
        self.until = -math.inf
        self.waves = 0

    def refused(
        self,
        now: float,
        *,
        call: int,
        newest: int,
        asked: float | None,
        blocked: bool = False,
        round_trip: float | None = None,
    ) -> Wave | None:
        """A call was refused. Returns the wave that begins with it; None: it belongs to the last one.

        Args:
            now: The moment.
            call: The number of the call.
            newest: The number of the newest call that has started.
            asked: Seconds the server asks to wait, or None.
            blocked: Whether nothing can start anyway until calls under way have ended, so that a server
                which asks for no pause gets none.
            round_trip: Seconds that a call takes, where known: a first pause need not be longer.
        """
        if asked is not None:
            asked = min(asked, LONGEST_ASKED)
        if call <= self._newest:
            if asked is not None and asked > 0:
                self.until = max(self.until, now + asked)
            return None
        first, self._served = self._served, False
        self._row = 1 if first else self._row + 1
        self._newest = newest
        if first:
            self._since = newest
        self.waves += 1
        if asked is not None and (asked > 0 or self._row == 1):
            seconds = asked
        elif blocked and self._row == 1:
            seconds = 0.0
        else:
            first_pause = _SHORTEST if round_trip is None else min(_SHORTEST, max(_LEAST, round_trip))
            seconds = min(_LONGEST, first_pause * 2.0 ** min(self._row - 1, 20))
        if seconds:
            seconds += self._uniform() * min(_MOST_JITTER, _JITTER * seconds)
            self.until = max(self.until, now + seconds)
        return Wave(seconds, first)

    def served(self, call: int) -> None:
        """A call was answered well. One that started before the episode tells nothing of how it goes on."""
        if call > self._since:
            self._served = True

    @staticmethod
    def ramp(seconds: float) -> float:
        """Over how many seconds the calls that such a pause held back start again.

        Example:
            >>> Pause.ramp(4.0)
            1.0
        """
        return min(_LONGEST_RAMP, max(_SHORTEST_RAMP, _RAMP * seconds))
