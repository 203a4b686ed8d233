"""What calls turn out to use, by how long they have been under way: learnt from those that ended. Pure.

Of calls that start together the short ones end first, so an average of what has ended is too low as long as
nothing else is known; and those under way at some moment are the long ones, which are likely to use more
than one that starts. So each call counts for as long as it was watched, those under way included: of the
calls that got as old as it, what share ended at this age (the product-limit estimator).

Sources: Kaplan and Meier, Nonparametric estimation from incomplete observations, JASA 53 (1958), here with
calls that were under way when watching began (left truncation).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from typing import NamedTuple

#: Calls that ended and are remembered, the newest: fewer doubt too much, more follow a change too late.
MEMORY = 1024
#: Calls under way that are watched at most; the others teach nothing. Watching more only costs more.
_WATCHED = 512
#: Of those, the newest that tell whether calls use more of late.
_NEWEST = 200
#: Learning takes time, so so many calls have ended anew, as a share of those remembered, before it is done.
_ANEW = 1 / 4
#: The longest calls on which no average, and no variance, for the ages of the longest alone can rest.
_MEAN_FROM, _VARIANCE_FROM = 4, 16
#: Where more than this share of all calls is longer than any that ended, they may use anything.
_UNSEEN = 0.1
#: How many times more than any before the calls that are longer than any before may use, at least.
_MORE = 1.5


class Likely(NamedTuple):
    """What one call is likely to use for each unit of its weight.

    Attributes:
        mean, variance: Of one call beside others.
        error: How far the mean itself may be off (its standard error), for all such calls at once.
    """

    mean: float
    variance: float
    error: float


class _Ended(NamedTuple):
    seconds: float
    weight: float
    used: float


class Uses:
    """Learns what calls use of the part that was not known before them.

    Calls may differ in weight: one of weight 2 is likely to use twice as much as one of weight 1.

    Example:
        >>> uses = Uses()
        >>> for moment in range(60):
        ...     uses.ended(uses.started(moment, weight=1.0, most=4000.0), moment + 2.0, used=200.0)
        >>> uses.learn(62.0), round(uses.at(0.0).mean)
        (True, 200)
    """

    __slots__ = ("_ages", "_anew", "_ended", "_likely", "_number", "_since", "_under_way", "count")

    def __init__(self) -> None:
        #: Calls that have told.
        self.count = 0
        self._ended: deque[tuple[float, float, float, float]] = deque()  # start, end, weight, used
        self._under_way: dict[int, tuple[float, float, float]] = {}  # start, weight, most
        self._since = -math.inf  # calls that ended before are forgotten
        self._number = self._anew = 0
        self._ages: list[float] = []  # at which calls ended, in order
        self._likely: list[
            Likely
        ] = []  # for calls that get to that age; one more for those that pass them all

    def started(self, now: float, weight: float, most: float) -> int:
        """A call starts that will use `most` at most, for all that is known. Returns a key for `ended`."""
        if len(self._under_way) >= _WATCHED:
            return 0
        self._number += 1
        self._under_way[self._number] = (now, weight, most)
        return self._number

    def ended(self, key: int, now: float, used: float | None) -> None:
        """It has ended, and used so much; None: it was broken off, and tells nothing."""
        found = self._under_way.pop(key, None)
        if found is None or used is None:
            return
        if len(self._ended) == MEMORY:
            self._since = self._ended.popleft()[1]
        self._ended.append((found[0], now, found[1], used))
        self.count += 1
        self._anew += 1

    def learn(self, now: float) -> bool:
        """Take in what was told, if there is enough of it. True: what `at` says has changed."""
        if not self._anew or self._anew < len(self._ended) * _ANEW:
            return False
        self._anew = 0
        ended = sorted(_Ended(end - start, weight, used) for start, end, weight, used in self._ended)
        masses, left = self._masses(now, ended)
        self._ages = [one.seconds for one in ended]
        likely = _conditional(ended, masses, left, *self._longer(now, ended, left))
        rise = self._rise(math.sqrt(likely[0].variance))
        self._likely = (
            [Likely(m * rise, v * rise * rise, e * rise) for m, v, e in likely] if rise > 1 else likely
        )
        return True

    def at(self, age: float) -> Likely | None:
        """What a call of this age is likely to use in all; None as long as none has told."""
        return self._likely[bisect_left(self._ages, age)] if self._likely else None

    @property
    def seconds(self) -> float:
        """What a call takes: the median of those that ended, or 0."""
        return self._ages[len(self._ages) // 2] if self._ages else 0.0

    def _masses(self, now: float, ended: list[_Ended]) -> tuple[list[float], float]:
        """The share of all calls that each of those that ended stands for, and the share that is longer."""
        under_way = [now - start for start, _, _ in self._under_way.values()]
        exits = sorted([*(one.seconds for one in ended), *under_way])
        starts = [*(one[0] for one in self._ended), *(one[0] for one in self._under_way.values())]
        since = self._since
        entries = sorted([since - start if start < since else 0.0 for start in starts])
        left, last, as_old = 1.0, math.nan, 0
        masses: list[float] = []
        for seconds, _, _ in ended:
            if seconds == last:
                as_old -= 1  # of those that end at the same age, one after the other
            else:
                watched = bisect_left(entries, seconds) if seconds > 0 else len(entries)
                as_old = watched - bisect_left(exits, seconds)
            last = seconds
            masses.append(left / as_old if as_old > 1 else left)
            left = max(0.0, left - masses[-1])
        return masses, left

    def _rise(self, deviation: float) -> float:
        """How many times as much calls use of late, as far as that is no chance: averages lag behind."""
        newest = list(self._ended)[-_NEWEST:]
        if len(self._ended) < 2 * len(newest):
            return 1.0
        was = sum(one[3] for one in self._ended) / sum(one[2] for one in self._ended)
        weight = sum(one[2] for one in newest)
        chance = 2 * deviation * math.sqrt(sum(one[2] * one[2] for one in newest)) / weight
        return max(1.0, (sum(one[3] for one in newest) / weight - chance) / was) if was > 0 else 1.0

    def _longer(self, now: float, ended: list[_Ended], left: float) -> tuple[float, float, float]:
        """Weight, mean and mean square of what calls use that are longer than any that ended.

        Between the most of any before and the most there is, and every order of size is as likely.
        """
        least = max(max(one.used / one.weight for one in ended[-_VARIANCE_FROM:]), 1e-3)
        calls = list(self._under_way.values())
        calls = [one for one in calls if now - one[0] > ended[-1].seconds] or calls
        weight = sum(one[1] for one in calls) / len(calls) if calls else 1.0
        most = sum(one[2] for one in calls) / (len(calls) * weight) if calls else least
        greater = max(most / least, 1.0) ** min(1.0, left / _UNSEEN)
        high = least * max(greater, _MORE)
        width = math.log(high / least)
        return weight, (high - least) / width, (high * high - least * least) / (2 * width)


def _conditional(
    ended: list[_Ended], masses: list[float], left: float, weight: float, mean: float, square: float
) -> list[Likely]:
    """For each age at which a call ended, what those use that get to it; and those that get past all."""
    w, x = left * weight, left * weight * mean  # sums over what is older: of weights, of what they use,
    ww, wx, xx = w * weight, x * weight, w * weight * square  # and of their products
    means, variances = [mean], [max(0.0, square - mean * mean)]
    for mass, one in zip(reversed(masses), reversed(ended), strict=True):
        w, x = w + mass * one.weight, x + mass * one.used
        ww += mass * one.weight * one.weight
        wx += mass * one.weight * one.used
        xx += mass * one.used * one.used
        if w > 0:
            mean = x / w
            means.append(mean)
            variances.append(max(0.0, xx - 2 * mean * wx + mean * mean * ww) / ww)
        else:
            means.append(means[-1])
            variances.append(variances[-1])
    few, several = min(_MEAN_FROM, len(ended)), min(_VARIANCE_FROM, len(ended))
    means[1:few] = [means[few]] * (few - 1)
    variances[:several] = [max(one, variances[several]) for one in variances[:several]]
    likely = [
        Likely(one, variance, math.sqrt(variance / max(told, several)))
        for told, (one, variance) in enumerate(zip(means, variances, strict=True))
    ]
    likely.reverse()
    return likely
