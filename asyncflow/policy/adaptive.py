"""A limit on calls at once that finds itself: `concurrency="auto"`. Pure; every method takes the moment.

Slow start doubles the limit once a round (the time of one call) until the first refusal. That cuts it, once,
and tells what the provider takes at once: one less than were under way. From there it is grown back, held at
the best known limit, and now and then probed above: by one, and where that is served by two, by four. Where
again and again fewer are refused than were served before, it is not their number alone that decides: nothing
is held then, and the limit goes up by one a round and down by a cut, as TCP's does.
Growth is spread over a round, never a burst, happens only while the limit is really filled, and is taken back
where it brings no more calls a second (`knee`); after a rest it is tried again.

Sources: Jacobson, Congestion Avoidance and Control (1988), for slow start, additive increase and one
multiplicative cut a round; CUBIC (RFC 9438) for the remembered limit, the plateau at it, and the growing
probe beyond it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from asyncflow.policy.knee import Knee

#: The first limit, and the highest.
START, HIGHEST = 16, 1000
#: What a refusal leaves of the limit; and where it came only of probing just above the best known one.
CUT, CUT_PROBE = 0.85, 0.95
#: Below this share of the best known limit, growth is as fast as in slow start.
_NEAR = 0.95
#: The limit counts as filled from this share on.
_FILLED = 0.8
#: Seconds that growth takes to double the limit, at least: what is shorter cannot be measured.
_SHORTEST_ROUND = 0.1
#: Seconds at the best known limit before the next probe above it: at first, and at most. And how many times
#: the pause that a failed probe costs.
_HOLD, _LONGEST_HOLD, _HOLD_PER_PAUSE = 10.0, 120.0, 15.0
#: Weight of the newest call in the time that a call takes.
_WEIGHT = 0.1
#: So many more refusals where as many were served before than above, and no limit is taken to be sharp.
_NOT_SHARP = 3


@dataclass(frozen=True, slots=True)
class Change:
    """The limit is another one from now on, and why."""

    old: int
    new: int
    reason: str


class Adaptive:
    """The limit, and what it has learnt.

    Args:
        start: The first limit.
        lowest, highest: What it stays between.

    Example:
        >>> auto = Adaptive(start=8)
        >>> auto.refused(1.0, at_once=8)
        Change(old=8, new=5, reason='refused with 8 at once')
        >>> auto.best
        7
    """

    __slots__ = (
        "_below", "_credit", "_grow_at", "_highest", "_hold", "_knee", "_lowest", "_probe_at", "_reason",
        "_rest_until", "_round", "_step", "_value", "best",
    )  # fmt: skip

    def __init__(self, *, start: int = START, lowest: int = 1, highest: int = HIGHEST) -> None:
        if not 1 <= lowest <= highest:
            raise ValueError(f"Adaptive(lowest={lowest!r}, highest={highest!r}): 1 <= lowest <= highest")
        self._lowest = lowest
        self._highest = highest
        self._value = float(min(highest, max(lowest, start)))
        self._round: float | None = None  # seconds that a call takes
        self._credit = 0.0  # growth earned and not yet used
        self._grow_at = -math.inf
        self._step = 1.0  # growth of the next round above the best known limit
        self._hold = _HOLD
        self._probe_at = math.inf
        self._knee = Knee()
        self._rest_until = -math.inf
        self._below = 0  # refusals where as many were served before, less those above
        self._reason = ""
        #: The most calls at once that are known to be served, or None before the first refusal.
        self.best: int | None = None

    @property
    def limit(self) -> int:
        """Calls at once."""
        return int(self._value)

    @property
    def round_trip(self) -> float | None:
        """Seconds that a call takes, on average, or None before the first."""
        return self._round

    @property
    def highest(self) -> int:
        """What the limit never exceeds."""
        return self._highest

    def cap(self, highest: int) -> Change | None:
        """Never exceed this from now on."""
        self._highest = min(self._highest, max(self._lowest, highest))
        return self._set(self._value, "the stricter of two settings")

    def succeeded(self, now: float, *, seconds: float, at_once: int) -> Change | None:
        """A call was served that had started since the last cut. What it earns is for `grow`.

        Args:
            now: The moment.
            seconds: How long it took.
            at_once: Calls under way just before it ended, itself included.
        """
        self._round = seconds if self._round is None else self._round + _WEIGHT * (seconds - self._round)
        limit, knee = self.limit, self._knee
        if at_once < _FILLED * limit:
            knee.interrupted()
            self._credit = 0.0
            return None
        known = knee.served(now, min(at_once, limit), self._round)
        if known is not None:
            self._credit = 0.0
            self._rest_until = now + knee.rest
            return self._set(known, f"{limit} at once were not served faster")
        if self._value >= min(self._highest, knee.ceiling) or knee.doubted or now < self._rest_until:
            self._credit = 0.0
            return None
        if self.best is None:
            earned, self._reason = 1.0, "slow start"
        elif self._value < _NEAR * self.best:
            earned, self._reason = 1.0, f"back towards {self.best}, the best known"
        elif self.limit < self.best:
            earned, self._reason = 1.0 / self._value, "additive increase"
        elif now >= self._probe_at:
            earned, self._reason = self._step / self._value, f"probing above {self.best}, the best known"
        else:
            return None
        self._credit = min(self._credit + earned, self._value)
        return None

    def failed(self) -> None:
        """A call failed, but was not refused: no reason to cut, and none to grow."""
        self._knee.interrupted()
        self._credit = 0.0

    def ready_at(self) -> float:
        """When `grow` will grow the limit if nothing happens until then, or inf."""
        return self._grow_at if self._credit >= 1.0 else math.inf

    def grow(self, now: float) -> Change | None:
        """Grow by what has been earned and is due: one call, after each `limit`-th part of a round."""
        if self._credit < 1.0 or now < self._grow_at:
            return None
        self._credit -= 1.0
        self._grow_at = now + max(_SHORTEST_ROUND, self._round or 0.0) / self._value
        grown = self._value + 1.0
        if self.best is not None and grown > self.best:
            if now < self._probe_at:  # earned below the best known limit, and not meant to pass it
                self._credit = 0.0
                return self._set(float(self.best), self._reason)
            # The last growth was served. A round that passes this way makes the next step twice as large.
            self.best = int(self._value)
            self._step = min(self._value, self._step * 2.0 ** (1.0 / self._step))
        return self._set(grown, self._reason)

    def refused(self, now: float, *, at_once: int, pause: float = 0.0) -> Change | None:
        """An episode of refusals has begun: cut the limit. Call it once for each.

        Where far fewer calls than the limit were under way, the reason may be another than their number: the
        limit is halved at most, and what was known to be served stays known. Where again and again fewer were
        than have been served before, nothing sharp is known, and growth does not wait there.

        Args:
            now: The moment.
            at_once: Calls under way when the refused one started, itself included.
            pause: Seconds that nothing starts because of it.
        """
        self._knee.interrupted()
        self._rest_until = -math.inf
        self._credit = 0.0
        if 2 * at_once < self.limit:
            self.best = max(self.best or 0, self.limit)
            return self._set(self._value / 2, f"refused with only {at_once} at once")
        reason = f"refused with {at_once} at once"
        served = max(self._lowest, min(at_once, self.limit) - 1)
        step, self._step = self._step, 1.0
        below = self.best is not None and at_once <= self.best
        self._below = self._below + 1 if below else max(0, self._below - 1)
        if below and self._below >= _NOT_SHARP:
            self._hold, self._probe_at = _HOLD, now
            change = self._set(self._value * CUT, reason)
            self.best = self.limit
            return change
        if self.best is not None and self.best < at_once <= self.best + max(2.0, 2.0 * step):
            # In vain, just above the best known limit.
            self._hold, served = min(_LONGEST_HOLD, 2.0 * self._hold), max(served, self.best)
            cut = served * CUT_PROBE
        else:
            self._hold, cut = _HOLD, served * CUT
        self.best = served
        self._probe_at = now + max(self._hold, pause * _HOLD_PER_PAUSE)
        return self._set(cut, reason)

    def refused_again(self, *, at_once: int) -> None:
        """Another refusal of the same wave: the limit stays, what is known to be served may be less."""
        if self.best is not None:
            self.best = max(self.limit, min(self.best, at_once - 1))

    def _set(self, value: float, reason: str) -> Change | None:
        old = self.limit
        self._value = float(min(self._highest, max(self._lowest, value)))
        return Change(old, self.limit, reason) if self.limit != old else None
