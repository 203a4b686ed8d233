"""So much per minute: when the next call may start, and what is used. Pure; every method takes the moment.

Two rules at once, because each alone is wrong. GCRA keeps calls evenly apart from the first second, so there
is no double burst; but what calls give back would let it catch up later and pass the quota of some minute. A
log of what the last minute was charged holds that off, and alone would let the whole minute go in a burst.

Sources: the generic cell rate algorithm, ITU-T I.371 annex A, with the theoretical arrival time as its one
variable; the sliding-window log, kept here in slices.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from asyncflow.policy.shares import Shares

#: The share of a quota that is not used: requests sent evenly do not arrive evenly.
_KEPT_BACK = 0.01
#: How far a call may come early, as a share of the period: what a late timer lost is caught up.
_EARLY = 1 / 600
#: How much may be used at one moment of what calls gave back, or of the time in which the log let nothing
#: start, as a share of the period.
_CREDIT = 1 / 60
#: Slices that the log cuts a period into. A slice is forgotten when all of it is older than the period.
_SLICES = 240


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

    cost: float
    slice: int
    expected: float


@dataclass(slots=True)
class _Slice:
    number: int
    used: float  # by all calls that started in it, charges of those under way included
    held: float  # of that, by calls under way
    calls: int  # under way


class Rate:
    """How much of a quota is used, and when a call fits.

    A call that costs more than the whole quota is charged the whole quota: it goes alone, and whether it is
    too large is for the server to say.

    Guarantee: the calls started in any `period` seconds use at most the quota, however much was given back
    meanwhile, where each uses what it was charged, or the same share of it. Where shares vary, calls under
    way are counted somewhat above their average, so that it still holds nearly always.

    Example:
        >>> rate = Rate(Quota(60))
        >>> rate.ready_at(5.0, 1) <= 5.0
        True
        >>> charge = rate.take(5.0, 1)
        >>> rate.ready_at(5.0, 1) > 5.8
        True
        >>> rate.settle(5.0, charge, 0)
        >>> rate.used(5.0)
        0.0
    """

    __slots__ = (
        "_calls",
        "_early",
        "_held",
        "_log",
        "_next",
        "_settled",
        "_shares",
        "_used",
        "_width",
        "quota",
    )

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self._early = quota.early
        self._width = quota.period / _SLICES
        self._next = -math.inf  # the theoretical arrival time: when the next call is due
        self._settled = -math.inf  # until when there is credit: something was given back, or the log is full
        self._log: deque[_Slice] = deque()  # oldest first
        self._used = self._held = 0.0  # sums over the log
        self._calls = 0  # of the log, under way
        self._shares = Shares()

    def ready_at(self, now: float, cost: float) -> float:
        """When a call of this cost may start, if nothing happens until then; `now` or before: at once."""
        self._forget(now)
        due = self._next - self._early
        # A hair of tolerance: what was taken and given back leaves a rounding behind.
        room = self.quota.amount * (1 + 1e-9) - min(cost, self.quota.amount)
        discount = self._discount()
        used = self._used - discount * self._held
        if used <= room:
            return due
        for entry in self._log:
            used -= entry.used - discount * entry.held
            if used <= room:
                # A hair more, so that the slice is gone at that moment, whatever the rounding.
                gone = (entry.number + 1) * self._width + self.quota.period + 1e-6
                self._settled = max(self._settled, gone)
                return max(due, gone)
        return due  # what is left of the log is rounding

    def take(self, now: float, cost: float) -> Charge:
        """Charge a call that starts now. Does not ask whether it may."""
        cost = min(cost, self.quota.amount)
        expected = self._shares.expected(cost)
        self._forget(now)
        number = math.floor(now / self._width)
        entry = self._entry(number)
        entry.used += cost
        entry.held += cost
        entry.calls += 1
        self._used += cost
        self._held += cost
        self._calls += 1
        self._next = self._due(now) + self.quota.spacing(expected)
        return Charge(cost, number, expected)

    def settle(self, now: float, charge: Charge, used: float) -> None:
        """Replace what a call was charged by what it used: more, less, or, where it is given back, 0."""
        self._forget(now)
        for entry in reversed(self._log):
            if entry.number == charge.slice:
                entry.used += used - charge.cost
                entry.held -= charge.cost
                entry.calls -= 1
                self._used += used - charge.cost
                self._held -= charge.cost
                self._calls -= 1
                break
        self._shares.learn(charge.cost, used, now - charge.slice * self._width)
        difference = used - charge.expected
        if difference < 0:
            lowest = now - self.quota.period * _CREDIT
            self._next = max(lowest, self._due(now) - self.quota.spacing(-difference))
            self._settled = now
        else:
            self._next = self._due(now) + self.quota.spacing(difference)

    def seen(self, now: float, used: float) -> None:
        """Count what was used before this began to, or by others; it delays nothing but a full log."""
        used = min(used, self.quota.amount)
        self._entry(math.floor(now / self._width)).used += used
        self._used += used

    def requote(self, amount: float) -> None:
        """Hold another quota from now on; what was used stays used."""
        self.quota = Quota(amount, self.quota.period)

    def used(self, now: float) -> float:
        """What the calls of the last period have used, those under way at what they were charged."""
        self._forget(now)
        return self._used

    def _entry(self, number: int) -> _Slice:
        if not self._log or self._log[-1].number != number:
            self._log.append(_Slice(number, 0.0, 0.0, 0))
        return self._log[-1]

    def _discount(self) -> float:
        """The share of what is held that will in all likelihood not be used."""
        return 0.0 if self._held <= 0 else 1.0 - self._shares.most(self._calls, self._held)

    def _due(self, now: float) -> float:
        # Credit is used at the same moment by who waits, or lost, as idle time is.
        floor = now - self.quota.period * _CREDIT if now <= self._settled else now
        return max(self._next, floor)

    def _forget(self, now: float) -> None:
        oldest = math.floor((now - self.quota.period) / self._width)
        log = self._log
        while log and log[0].number < oldest:
            entry = log.popleft()
            self._used -= entry.used
            self._held -= entry.held
            self._calls -= entry.calls
        if not log:
            self._used = self._held = 0.0  # no rounding outlives the calls it came from
