"""So much per minute: when the next call may start, and what is used. Pure; every method takes the moment.

Two rules at once, because each alone is wrong. GCRA keeps calls evenly apart from the first second, so there
is no double burst; but what calls give back would let it catch up later and pass the quota of some minute. A
log of the last minute holds that off, and alone would let the whole minute go in a burst.

Some providers count a call when it comes, some when it is done, some in between. So the log is kept in both
ways: no minute's starts, and no minute's ends, pass the quota. What those under way will use is not known,
only how likely it is: they count as what they will hardly exceed together.

Sources: the generic cell rate algorithm, ITU-T I.371 annex A, with the theoretical arrival time as its one
variable; the sliding-window log, kept here in slices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from asyncflow.policy.uses import Uses
from asyncflow.policy.window import Cost, Window

#: The share of a quota that is not used: requests sent evenly do not arrive evenly.
_KEPT_BACK = 0.01
#: How far a call may come early, as a share of the period: what a late timer lost is caught up.
_EARLY = 1 / 600
#: How much may be used at one moment of what calls gave back, or of the time in which the log let nothing
#: start, as a share of the period.
_CREDIT = 1 / 60


@dataclass(frozen=True, slots=True)
class Quota:
    """So much in any `period` seconds.

    Args:
        amount: Requests, or tokens; at least 1.
        period: Seconds.

    Example:
        >>> round(Quota(600).spacing(1), 4)
        0.1012
    """

    amount: float
    period: float = 60.0

    def __post_init__(self) -> None:
        if isinstance(self.amount, bool) or not isinstance(self.amount, (int, float)):
            raise TypeError(f"Quota({self.amount!r}): a number is needed")
        if not (1 <= self.amount < math.inf and 0 < self.period < math.inf):
            raise ValueError(f"Quota({self.amount!r}, {self.period!r}): at least 1, in a finite period")

    @property
    def early(self) -> float:
        """Seconds that a call may come before its turn."""
        return self.period * _EARLY

    def spacing(self, cost: float) -> float:
        """Seconds of the quota that `cost` uses up."""
        return cost * self.period / (self.amount * (1 - _KEPT_BACK - _EARLY))


@dataclass(slots=True)
class Charge:
    """What one call was charged, in which slice of time, and what it was paced by. For `settle`, once."""

    cost: Cost
    slice: int
    expected: float
    watched: int


class Rate:
    """How much of a quota is used, and when a call fits.

    A call that costs more than the whole quota goes alone, and whether it is too large is for the server to
    say.

    Guarantee: the calls started in any `period` seconds use at most the quota, however much was given back
    meanwhile, where each uses what was known of it, or the same share of it. Where that varies, calls under
    way are counted so far above their average that it still holds nearly always. What calls use that ended in
    any `period` seconds passes it by no more than by what those under way come to.

    Example:
        >>> rate = Rate(Quota(60))
        >>> rate.ready_at(5.0, Cost(1)) <= 5.0
        True
        >>> charge = rate.take(5.0, Cost(1))
        >>> rate.ready_at(5.0, Cost(1)) > 5.8
        True
        >>> rate.settle(5.0, charge, 0)
        >>> rate.used(5.0)
        0.0
    """

    __slots__ = ("_early", "_ended", "_next", "_settled", "_started", "quota")

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self._early = quota.early
        self._next = -math.inf  # the theoretical arrival time: when the next call is due
        self._settled = -math.inf  # until when there is credit: something was given back, or the log is full
        self._started = Window(quota.period, Uses())
        self._ended = Window(quota.period, Uses())  # by when they ended, where more was to learn by that

    @property
    def due(self) -> float:
        """When the next call is due, if the log has room for it, which takes longer to ask."""
        return self._next - self._early

    def ready_at(self, now: float, cost: Cost) -> float:
        """When a call of this cost may start, if nothing happens until then; `now` or before: at once."""
        self._started.look(now)
        room = self._started.leaves_room_at(cost, self.quota.amount)
        if cost.weight:
            self._ended.look(now)
            at_once = Cost(self._expected(cost))
            room = max(room, self._ended.leaves_room_at(at_once, self.quota.amount))
        self._settled = max(self._settled, room)
        return max(self.due, room)

    def take(self, now: float, cost: Cost) -> Charge:
        """Charge a call that starts now. Does not ask whether it may."""
        self._started.look(now)
        expected = self._expected(cost)
        self._next = self._due(now) + self.quota.spacing(expected)
        number = self._started.started(now, cost)
        watched = self._started.uses.started(now, cost.weight, cost.most) if cost.weight else 0
        return Charge(cost, number, expected, watched)

    def settle(self, now: float, charge: Charge, used: float) -> None:
        """Replace what a call was charged by what it used: more, less, or, where it is given back, 0."""
        self._started.look(now)
        self._started.ended(charge.slice, charge.cost, used)
        if charge.watched:
            self._started.uses.ended(charge.watched, now, used - charge.cost.sure if used > 0 else None)
        if charge.cost.weight and used > 0:
            self._ended.started(now, Cost(used))
        difference = used - charge.expected
        if difference < 0:
            lowest = now - self.quota.period * _CREDIT
            self._next = max(lowest, self._due(now) - self.quota.spacing(-difference))
            self._settled = now
        else:
            self._next = self._due(now) + self.quota.spacing(difference)

    def seen(self, now: float, used: float) -> None:
        """Count what was used before this began to, or by others; it delays nothing but a full log."""
        self._started.started(now, Cost(min(used, self.quota.amount)))

    def requote(self, amount: float) -> None:
        """Hold another quota from now on; what was used stays used."""
        self.quota = Quota(amount, self.quota.period)

    def used(self, now: float) -> float:
        """What the calls of the last period have used, those under way at what they are likely to use."""
        self._started.look(now)
        return self._started.likely

    def _expected(self, cost: Cost) -> float:
        likely = self._started.uses.at(0.0)
        more = cost.guess if likely is None else cost.weight * likely.mean
        return min(max(0.0, cost.sure + more), self.quota.amount)

    def _due(self, now: float) -> float:
        # Credit is used at the same moment by who waits, or lost, as idle time is.
        floor = now - self.quota.period * _CREDIT if now <= self._settled else now
        return max(self._next, floor)
