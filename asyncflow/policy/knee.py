"""Where more calls at once bring no more calls a second: the knee of the throughput curve. Pure.

Below the knee twice the calls at once are served at twice the rate, whatever each of them takes. Beyond it
they only wait: in the queue of a server that is full and refuses nobody, or for this process, whose processor
has no more to give. Nobody says so, and no error tells; the rate does.

Source: Jain and Ramakrishnan, Congestion Avoidance in Computer Networks with a Connectionless Network Layer
(1988), for the knee, and for finding it from outside.
"""

from __future__ import annotations

import math

#: What a rate is measured over at least: calls, and seconds (or the time of a call, where that is longer);
#: and how many times of it where the decision hangs on it.
_CALLS, _SECONDS, _SURE = 64, 0.1, 2
#: Levels that are this close are one; those that are this far apart are compared.
_SAME, _APART = 1.1, 1.5
#: A level is worth it where the rate grows with this power of it: by a seventh where it is doubled.
_WORTH = 0.2
#: Weight of the newest rate at the known level.
_WEIGHT = 0.3
#: Seconds at the knee before growth is tried again: the first time, and at most.
_REST, _LONGEST_REST = 10.0, 120.0


class Knee:
    """Measures the rate at level after level (calls at once), each against one below that is known.

    Where the higher one is hardly faster it is `doubted`: growth has to wait until it has been measured once
    more, and longer.

    Example:
        >>> knee = Knee()
        >>> def a_second(start, level, rate):
        ...     said = [knee.served(start + call / rate, level, 0.1) for call in range(rate)]
        ...     return [known for known in said if known is not None]
        >>> a_second(0, 16, 640), a_second(1, 32, 1280), a_second(2, 64, 1290)[:1]
        ([], [], [32])
    """

    __slots__ = (
        "_calls",
        "_found",
        "_least",
        "_level",
        "_levels",
        "_rate",
        "_since",
        "ceiling",
        "doubted",
        "rest",
    )

    def __init__(self) -> None:
        self._level = math.inf  # the known one
        self._rate = 0.0  # calls a second at it
        self._since: float | None = None  # what is being measured
        self._calls = self._levels = 0
        self._least = 0.0
        #: Whether the level that is being measured seems to be beyond the knee.
        self.doubted = False
        self._found = False
        #: Where growth has to wait until the level there is known, once a knee was found.
        self.ceiling = math.inf
        #: Seconds to stay at the level that `served` has said to go back to: longer each time in a row.
        self.rest = _REST / 2

    def interrupted(self) -> None:
        """Something else than the level decides the rate, so what is being measured is worth nothing."""
        self._since = None
        self.doubted = False

    def served(self, now: float, level: int, round_trip: float) -> int | None:
        """A call was served, with so many at once under way.

        Args:
            now: The moment.
            level: Calls at once.
            round_trip: Seconds that a call takes, on average.

        Returns:
            The level to go back to, which was served as fast as this one; None: there is nothing to say.
        """
        if self._since is None:
            self._begin(now, round_trip)
            return None
        self._calls += 1
        self._levels += level
        took = now - self._since
        much = _SURE if self.doubted else 1
        if self._calls < much * _CALLS or took < much * self._least:
            return None
        mean, rate = self._levels / self._calls, self._calls / took
        self._begin(now, round_trip)
        doubted, self.doubted = self.doubted, False
        if mean <= _SAME * self._level:
            if self._rate:
                rate = self._rate + _WEIGHT * (rate - self._rate)
            self._know(min(mean, self._level), rate)
        elif mean < _APART * self._level:
            pass  # too close to tell
        elif rate >= self._rate * (mean / self._level) ** _WORTH:
            self._know(mean, rate)
            self.rest = _REST / 2
        elif doubted:
            self.rest = min(_LONGEST_REST, 2.0 * self.rest)
            self._found = True
            self._know(self._level, self._rate)
            return max(1, round(self._level))
        else:
            self.doubted = True
        return None

    def _begin(self, now: float, round_trip: float) -> None:
        self._since, self._calls, self._levels = now, 0, 0
        self._least = max(_SECONDS, round_trip)  # as it is now: in a queue it grows while it is waited for

    def _know(self, level: float, rate: float) -> None:
        self._level, self._rate = level, rate
        if self._found:
            self.ceiling = 2.0 * level
