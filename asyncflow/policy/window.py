"""What the calls of the last period have used and are likely to use: a log in slices of time. Pure.

What a call used is known when it has ended. Of one under way there is known what was sure before it (its
prompt), and how much more such calls use that are as old as it is.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

from asyncflow.policy.uses import Uses

#: Slices that a period is cut into. A slice is forgotten when all of it is older than the period.
SLICES = 600
#: How often calls under way are looked at anew, because who takes long is likely to use much: in a period,
#: and in the time that a call takes.
_LOOKS, _LOOKS_A_CALL = 60, 4
#: Calls under way are counted so many standard deviations of their sum above its average, and so many more of
#: a single call: lengths are skewed, and one long answer is the commonest surprise (Cornish and Fisher).
_DOUBT, _SKEWED = 3.8, 6.5
#: What has been learnt from n calls is doubted by so much more, divided by n.
_NEW = 60.0

#: Of calls under way: average of what they use, variance, third power of the deviations, how far the average
#: itself may be off, the most.
Sums: TypeAlias = list[float]
_NOTHING: Sums = [0.0] * 5


class Cost(NamedTuple):
    """What a call will use, as far as that is known before it.

    Attributes:
        sure: What is known, as the tokens of its prompt.
        weight: How much more it may use, beside other calls of the same quota; 0: nothing.
        most: What that comes to at most.
        guess: What it is taken for until calls have told.
    """

    sure: float
    weight: float = 0.0
    most: float = 0.0
    guess: float = 0.0

    @classmethod
    def about(cls, amount: float) -> Cost:
        """So much, more or less: calls will tell what share of it they use."""
        return cls(0.0, amount, amount, amount)


class _Slice:
    """Calls that started in one slice of time.

    What one of weight w under way is likely to use has the average `mean` times w, or `most` where nothing is
    known yet, and the variance `variance` times w squared; `third` is for the third power of its deviation.
    """

    __slots__ = (
        "calls", "error", "mean", "most", "third", "unknown", "used", "variance",
        "weight", "weight2", "weight3",
    )  # fmt: skip

    def __init__(self) -> None:
        self.used = 0.0  # by those that ended, and what is sure of the others
        self.calls = 0  # under way
        self.weight = self.weight2 = self.weight3 = self.most = 0.0  # sums over them
        self.mean = self.variance = self.third = self.error = 0.0
        self.unknown = 1.0

    def look(self, uses: Uses, age: float) -> None:
        likely = uses.at(age)
        if likely is not None:
            self.mean, self.variance, self.error = likely
            self.third = self.variance * math.sqrt(self.variance)
            self.unknown = 0.0

    def count(self, cost: Cost, calls: int) -> Sums:
        """Count a call under way (1), or take one out (-1). Returns what that adds to what is likely."""
        weight, most = calls * cost.weight, calls * cost.most
        weight2 = weight * cost.weight
        weight3 = weight2 * cost.weight
        self.calls += calls
        self.weight += weight
        self.weight2 += weight2
        self.weight3 += weight3
        self.most += most
        return self._likely(weight, weight2, weight3, most)

    @property
    def likely(self) -> Sums:
        """What those under way are likely to use."""
        return self._likely(self.weight, self.weight2, self.weight3, self.most)

    def adds(self, cost: Cost) -> Sums:
        """What one more call would add to it."""
        weight = cost.weight
        return self._likely(weight, weight * weight, weight * weight * weight, cost.most)

    def _likely(self, weight: float, weight2: float, weight3: float, most: float) -> Sums:
        mean = self.mean * weight + self.unknown * most
        return [mean, self.variance * weight2, self.third * weight3, self.error * weight, most]


class Window:
    """The calls that started within the last period.

    Attributes:
        used: By those that ended, and what is sure of those under way.
        uses: What more they use.

    Example:
        >>> window = Window(60.0, Uses())
        >>> window.started(1.0, Cost(100, weight=1.0, most=900))
        10
        >>> window.used, window.leaves_room_at(Cost(0.0), 900), window.leaves_room_at(Cost(0.0), 1000)
        (100.0, 61.100001, -inf)
    """

    __slots__ = (
        "_likely",
        "_log",
        "_look_at",
        "_new",
        "_oldest_gone",
        "_period",
        "_under_way",
        "_width",
        "used",
        "uses",
    )

    def __init__(self, period: float, uses: Uses) -> None:
        self._period = period
        self._width = period / SLICES
        self._log: dict[int, _Slice] = {}  # oldest first
        self._under_way: dict[int, _Slice] = {}  # of those, the ones with calls under way
        self._look_at = -math.inf
        self._new = _Slice()  # empty, and never filled: for a call that may start
        self._likely = _NOTHING  # of all slices together, as `_Slice.likely`
        self._oldest_gone = math.inf
        self.used = 0.0
        self.uses = uses

    @property
    def likely(self) -> float:
        """What the period's calls will have used, those under way on average."""
        return self.used + self._likely[0]

    def started(self, now: float, cost: Cost) -> int:
        """A call starts. Returns the number of its slice."""
        number = math.floor(now / self._width)
        entry = self._log.get(number)
        if entry is None:
            entry = self._log[number] = _Slice()
            entry.look(self.uses, 0.0)
            self._oldest_gone = min(self._oldest_gone, self._gone(number))
        self._count(number, entry, cost, 1)
        return number

    def ended(self, number: int, cost: Cost, used: float) -> None:
        """A call of that slice has ended, and used so much."""
        entry = self._log.get(number)
        if entry is not None:
            self._count(number, entry, cost, -1)
            entry.used += used
            self.used += used

    def leaves_room_at(self, cost: Cost, amount: float) -> float:
        """When a call may start with which no more than `amount` is used in a period; `-inf`: at once."""
        used = self.used + cost.sure
        sums, alone = self._likely, 0.0
        if cost.weight:
            more = self._new.adds(cost)
            alone = self._at_most(more)
            sums = _sum(sums, more)
        # One that never fits goes alone. What was taken and given back leaves a rounding behind.
        amount = max(amount, cost.sure + alone) * (1 + 1e-9)
        if used + self._at_most(sums) <= amount:
            return -math.inf
        gone = -math.inf
        for number, entry in self._log.items():
            used -= entry.used
            if entry.calls:
                sums = _difference(sums, entry.likely)
            gone = self._gone(number)
            if used + self._at_most(sums) <= amount:
                break
        return gone

    def _gone(self, number: int) -> float:
        """When a slice is forgotten."""
        return (number + 1) * self._width + self._period + 1e-6  # a hair more, whatever the rounding

    def look(self, now: float) -> None:
        """Forget what is older; look at those under way anew, where time has passed or calls have told."""
        if now >= self._oldest_gone:
            self._forget(now)
        told = self.uses.learn(now)
        if told:
            self._new.look(self.uses, 0.0)
        if not self._under_way or not (told or now >= self._look_at):
            return
        self._look_at = now + min(self._period / _LOOKS, self.uses.seconds / _LOOKS_A_CALL)
        self._likely = _NOTHING  # summed anew: no rounding lasts
        for number, entry in self._under_way.items():
            entry.look(self.uses, max(0.0, now - number * self._width))
            self._likely = _sum(self._likely, entry.likely)

    def _at_most(self, sums: Sums) -> float:
        """What calls under way will in all likelihood not exceed together."""
        mean, variance, third, error, most = sums
        if variance <= 1e-9:
            return mean
        # What one call deviates by, others make good; an average that is off is so for all of them.
        doubt = _DOUBT * math.sqrt(variance + error * error) + _SKEWED * third / variance
        likely_most = mean + doubt * (1 + _NEW / max(1, self.uses.count))
        return likely_most if mean > most else min(likely_most, most)  # what was said of most may be wrong

    def _count(self, number: int, entry: _Slice, cost: Cost, calls: int) -> None:
        """Count a call that starts (1), or take one out that ends (-1)."""
        entry.used += calls * cost.sure
        self.used += calls * cost.sure
        if not cost.weight:
            return
        self._likely = _sum(self._likely, entry.count(cost, calls))
        if not entry.calls:
            del self._under_way[number]
        elif calls > 0:
            self._under_way[number] = entry

    def _forget(self, now: float) -> None:
        oldest = math.floor((now - self._period) / self._width)
        log = self._log
        while log and (number := next(iter(log))) < oldest:
            entry = log.pop(number)
            self.used -= entry.used
            if entry.calls:
                del self._under_way[number]
                self._likely = _difference(self._likely, entry.likely)
        if log:
            self._oldest_gone = self._gone(next(iter(log)))
        else:
            self.used, self._likely = 0.0, _NOTHING  # no rounding outlives the calls it came from
            self._oldest_gone = math.inf


def _sum(a: Sums, b: Sums) -> Sums:
    return [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4]]


def _difference(a: Sums, b: Sums) -> Sums:
    return [a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3], a[4] - b[4]]
