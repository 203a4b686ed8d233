"""How much of their charge calls under way will turn out to use: an average, and the doubt in it. Pure."""

from __future__ import annotations

import math

#: Calls that the averages are taken over, about: fewer doubt too much, more follow a change too late.
_MEMORY = 500.0
#: How many calls the belief weighs that all of a charge is used. The first that end are the shortest.
_PRIOR = 20.0
#: Standard deviations that the sum of calls under way is counted above its average; and how many more for one
#: call, which fall with the square root of how many there are: lengths are skewed (Cornish and Fisher).
_DOUBT, _SKEWED = 2.6, 5.0


class Shares:
    """Learns how much of their charge calls use.

    Two averages, because long answers take long: of the calls that are under way at some moment more are long
    ones than of the calls that start. What a call that starts will use is the plain average; what those under
    way will use is the average weighted by how long each call took (length-biased sampling).

    The sum of n calls under way is known but for their own deviations and for that of the average they are
    judged by, which rests on m calls: a variance of `share variance * (1 / n + 1 / m)`, relative to what is
    charged.

    Example:
        >>> shares = Shares()
        >>> for _ in range(5000):
        ...     shares.learn(charged=500.0, used=300.0, seconds=2.0)
        >>> round(shares.expected(500.0))
        301
        >>> 0.6 < shares.most(calls=100, charged=50_000.0) < 0.61
        True
    """

    __slots__ = ("_count", "_long_mean", "_long_share", "_mean", "_seconds", "_share", "_variance")

    def __init__(self) -> None:
        self._count = 0  # calls that have told
        self._share = 1.0
        self._mean = 0.0  # what a call uses
        self._seconds = 0.0  # that those calls took; the weights of the next three
        self._long_share = 1.0
        self._long_mean = 0.0
        self._variance = 0.0

    def learn(self, charged: float, used: float, seconds: float) -> None:
        """A call has ended after so many seconds. One that was given back whole tells nothing."""
        if used <= 0 or charged <= 0:
            return
        self._count += 1
        weight = 1.0 / min(_MEMORY, self._count)
        share = used / charged
        self._share += weight * (share - self._share)
        self._mean += weight * (used - self._mean)
        seconds = max(seconds, 1e-3)
        self._seconds = self._seconds * (1.0 - 1.0 / _MEMORY) + seconds
        weight = seconds / self._seconds
        surprise = share - self._long_share
        self._long_share += weight * surprise
        self._long_mean += weight * (used - self._long_mean)
        self._variance = (1 - weight) * (self._variance + weight * surprise * surprise)

    def expected(self, charge: float) -> float:
        """What a call that is charged so much will probably use; never more than that."""
        known = min(charge, max(self._share * charge, self._mean))
        return known + (charge - known) * self._belief()

    def most(self, calls: int, charged: float) -> float:
        """The share of their charges that calls under way will in all likelihood not exceed together.

        Above 1 where they are few and charges are exceeded now and then.
        """
        if not self._count:
            return 1.0
        # While estimates get better, shares of old charges tell too little of new ones; amounts do.
        share = max(self._long_share, min(1.0, self._long_mean * calls / charged))
        share += (1.0 - share) * self._belief()
        calls = max(1, calls)
        deviation = math.sqrt(self._variance * (1.0 / calls + 1.0 / min(_MEMORY, self._count)))
        return share + (_DOUBT + _SKEWED / math.sqrt(calls)) * deviation

    def _belief(self) -> float:
        """What the belief in the whole charge weighs by now."""
        return _PRIOR / (_PRIOR + self._count)
