"""Following what a provider reports of its quotas: what it allows a minute, and what is left just now. Pure.

Two uses of one report. The limit, where it is one a minute, sets a rate. What is left holds back calls that
it would not let through, until it is full again: that covers what others use of the same quota, and quotas
that are not a minute's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

from asyncflow.policy.pause import LONGEST_ASKED
from asyncflow.policy.reported import Quota, rate_limits
from asyncflow.policy.settings import LaneSettings

#: The kinds of quotas that answers report, by their names in `RateLimits`.
KINDS = ("requests", "tokens", "input_tokens", "output_tokens")
#: So much of each kind.
Amounts: TypeAlias = tuple[float, float, float, float]

#: A reset further away than this many seconds does not belong to a quota of a minute.
_MINUTE = 61.0
#: Reports in a row of a quota that fills far faster than in a minute, until that is believed; and how far off
#: no reset of such a quota is.
_STRIKES, _SECONDS = 3, 6.0
#: Where answers say nothing of quotas, one in so many is looked at.
_SELDOM = 64
#: Seconds' worth of a quota that refills before calls go on, where it refills all the time.
_REFILL = 1.0


class Followed:
    """One quota of a provider, as its answers report it.

    Whoever asks counts what starts, in calls or in tokens; `position` is that count when a call started. So
    what a report does not know of yet is what has started since.

    Example:
        >>> quota = Followed()
        >>> quota.heard(0.0, position=1, quota=Quota(limit=60, remaining=2, reset=58.0))
        >>> quota.per_minute
        60.0
        >>> quota.ready_at(0.0, need=1, position=2), quota.ready_at(0.0, need=1, position=3)
        (-inf, 2.0)
    """

    __slots__ = (
        "_at", "_left", "_longest", "_other", "_position", "_refills", "_strikes", "_until", "limit", "used",
    )  # fmt: skip

    def __init__(self) -> None:
        #: What it allows a period, by the newest report; None: nothing was said.
        self.limit: float | None = None
        #: What of it was used by then.
        self.used = 0.0
        self._other = False  # whether it is of another period than a minute
        self._strikes = 0
        self._longest = 0.0  # seconds until a reset, of all reports
        self._left = math.inf
        self._position = -math.inf
        self._at = self._until = -math.inf
        self._refills = False  # all the time, at the rate of its limit; else at its reset, for all we know

    @property
    def per_minute(self) -> float | None:
        """What a minute allows, where that was said."""
        return None if self._other else self.limit

    def heard(self, now: float, position: float, quota: Quota | None) -> None:
        """An answer to the call that started at this position reports the quota."""
        if quota is None or not quota.limit or position < self._position:
            return
        limit, left, reset = float(quota.limit), quota.remaining, quota.reset
        self.limit = limit
        self._position = position
        self._left, self._until = math.inf, -math.inf
        if left is None or left > limit:
            return
        self.used = limit - left
        if reset is None:
            return
        refill = reset * limit / 60.0  # what flows in until it is full, if it is a minute's and refills
        self.used = min(self.used, refill)
        # A plain window looks so by chance, and then once.
        self._refills = 0.75 * (limit - left) - 1 <= refill <= 1.25 * (limit - left) + 1
        self._longest = max(self._longest, reset)
        # A second more, because some resets are rounded to whole seconds.
        faster = left >= limit / 2 and refill + limit / 60.0 < 0.25 * (limit - left)
        self._strikes = self._strikes + 1 if faster else 0
        self._other = self._longest > _MINUTE or (self._strikes >= _STRIKES and self._longest < _SECONDS)
        self._left, self._at, self._until = float(left), now, now + min(reset, LONGEST_ASKED)

    def ready_at(self, now: float, need: float, position: float) -> float:
        """When a call that needs so much may start, by what is left; `-inf`: at once.

        An hour after the newest report at the latest: then calls find out whether it still holds.

        Args:
            now: The moment.
            need: Calls, or tokens.
            position: What has started by now.
        """
        if now >= self._until or self.limit is None:
            return -math.inf
        missing = min(need, self.limit) - (self._left - (position - self._position))
        if missing <= 0:
            return -math.inf
        if not self._refills or self._other:
            return self._until
        return min(self._until, self._at + (missing * 60.0 / self.limit) + _REFILL)

    def exhausted(self, position: float, need: float) -> bool:
        """Whether the call that started at this position was refused for this quota, by its own report."""
        return position == self._position and self._left < (
            need if self.limit is None else min(need, self.limit)
        )


class Reports:
    """All that one provider reports: its quotas, by kind.

    Attributes:
        quotas: In the order of `KINDS`.
        learnt: What it allows a minute, as settings.
        any: Whether it reports anything.
    """

    __slots__ = ("_deaf", "_silent", "any", "learnt", "quotas")

    def __init__(self) -> None:
        self.quotas = tuple(Followed() for _ in KINDS)
        self.learnt = LaneSettings()
        self.any = False
        self._deaf = self._silent = 0  # answers not to look at, and how many those were last time

    def heard(self, now: float, position: Amounts, headers: Mapping[str, str]) -> bool:
        """An answer has come to a call. True: what it allows a minute has changed.

        Args:
            now: The moment.
            position: What all calls until that one had reserved, it included.
            headers: The answer's.
        """
        if self._deaf:
            self._deaf -= 1
            return False
        limits = rate_limits(headers)
        if limits is None:
            if not self.any:
                self._deaf = self._silent = min(_SELDOM, 2 * self._silent + 1)
            return False
        self.any = True
        for kind, quota, at in zip(KINDS, self.quotas, position, strict=True):
            quota.heard(now, at, getattr(limits, kind))
        requests, tokens, read, written = (quota.per_minute for quota in self.quotas)
        learnt = LaneSettings(
            requests, tokens, input_tokens_per_minute=read, output_tokens_per_minute=written
        )
        changed, self.learnt = learnt != self.learnt, learnt
        return changed

    def ready_at(self, now: float, need: Amounts, position: Amounts) -> float:
        """When what is left lets a call start that needs so much, after all those until now."""
        ready = -math.inf
        for quota, amount, at in zip(self.quotas, need, position, strict=True):
            if quota.limit is not None:
                ready = max(ready, quota.ready_at(now, amount or 1.0, at))
        return ready

    def used_up(self, need: Amounts, position: Amounts) -> bool:
        """Whether a refusal of the call at this position was for a quota, by its own report."""
        return self.any and any(
            quota.exhausted(at, amount or 1.0)
            for quota, amount, at in zip(self.quotas, need, position, strict=True)
        )
