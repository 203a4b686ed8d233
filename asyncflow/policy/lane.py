"""`RateLane`: all that stands between a call and one provider, one key, one model.

Rules decide (`rate`, `adaptive`, `pause`, `breaker`, `retries`), this asks them, in one place and at one
moment: a call starts when all of them let it, and is charged by all of them at once, so nothing is held by a
call that still waits for something else.
"""

from __future__ import annotations

import copy
import logging
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace

from asyncflow import clock
from asyncflow.errors import RateLimitedError
from asyncflow.events import Event, LanePaused, LaneResumed, LaneStopped, LimitChanged
from asyncflow.policy.adaptive import CUT, HIGHEST, START, Adaptive, Change
from asyncflow.policy.attempt import Attempt
from asyncflow.policy.breaker import Breaker
from asyncflow.policy.ending import Ending, refused_unsent
from asyncflow.policy.line import Line
from asyncflow.policy.pause import Pause
from asyncflow.policy.quotas import Quotas
from asyncflow.policy.retries import RetryBudget
from asyncflow.policy.settings import PER_MINUTE, LaneSettings
from asyncflow.policy.status import LaneStatistics, describe
from asyncflow.policy.tokens import TokenEstimate
from asyncflow.waiting import waiting

_log = logging.getLogger("asyncflow")

#: Seconds that a provider is probed which fails again and again, before its lane stops: where it has ever
#: answered, and where it never has, so that its address may simply be wrong.
PATIENCE, PATIENCE_UNHEARD = 3600.0, 30.0
#: Failures in a row, whoever's, from which on the provider seems to be the reason.
_FAILING = 10
#: Waits for a provider's quota that are shorter than this many seconds are not told.
_TOLD_FROM = 1.0


class RateLane:
    """Lets attempts start as the provider's limits allow, first come first served.

    It meets the `Lane` protocol of `asyncflow.http`: one context manager around each attempt. Waiting is
    said (`waiting(…)`), so no timeout runs meanwhile and no slot of the run is held. How an attempt ends is
    told by the error that passes through:

    - a refusal (429) pauses the lane, once for each wave of them, as long as the server asks;
    - 401, 402 and 403 stop it: who waits, and who comes later, gets the same error without sending;
    - 20 failures in a row open the breaker: nothing is sent but a probe after 5, 10, 20, … 60 seconds. After
      an hour of that (after 30 seconds, where there never was an answer) the lane stops;
    - what headers say of quotas is followed: a limit a minute is kept as if it had been given, and where
      nothing is left nothing starts until something is there again;
    - cancelled attempts give back their tokens, and those that were never sent their request too.

    A lane belongs to one event loop at a time.

    Args:
        settings: The limits.
        name: How events and `repr` call it.
        tell: Takes events; must not raise.
        uniform: Where randomness comes from: a function that returns a float in [0, 1).
        stops_when_denied: Whether 401, 402 and 403 stop it; not where they may be about one address only.

    Example:
        >>> import asyncio
        >>> lane = RateLane(LaneSettings(requests_per_minute=600, concurrency=8), name="m at localhost")
        >>> async def main():
        ...     async with lane.attempt(100) as ticket:
        ...         ticket.used(80)
        ...     return lane
        >>> asyncio.run(main())
        <RateLane m at localhost open limit=8 running=0 waiting=0 600 requests/min>
    """

    def __init__(
        self,
        settings: LaneSettings,
        *,
        name: str = "",
        tell: Callable[[Event], None] | None = None,
        uniform: Callable[[], float] = random.random,
        stops_when_denied: bool = True,
    ) -> None:
        self.name = name
        self._stops_when_denied = stops_when_denied
        self.settings = settings
        #: What calls of this lane turn out to use, for the next reservation.
        self.estimate = TokenEstimate()
        self._tell = tell
        self._line: Line[Attempt] = Line(self._admit)
        self._retry_line: Line[Attempt] = Line(self._admit_retry)
        self._retries = RetryBudget()
        self._pause = Pause(uniform)
        self._breaker = Breaker()
        self._auto: Adaptive | None = None
        self._kept = settings  # besides what the provider reports
        self._quotas = Quotas(settings)
        self._empty_until = -math.inf  # nothing is left of a quota until then
        self._fit()
        self._running = self._started = self._succeeded = self._refused = self._failed = 0
        self._cut_after = 0  # the newest attempt when the limit was last cut
        self._pace = self._pace_until = -math.inf
        self._spacing = 0.0  # between two starts, until _pace_until
        self._stopped: Exception | None = None
        self._quiet = False  # paused, down or stopped, and not yet told that it is over

    @property
    def limit(self) -> int | None:
        """Attempts at once, by now; None: any number."""
        if self._auto is not None:
            return self._auto.limit
        return self.settings.concurrency if isinstance(self.settings.concurrency, int) else None

    @property
    def kept(self) -> LaneSettings:
        """Its settings, and the quotas that the provider reports where those are stricter."""
        return self._kept

    @property
    def failing(self) -> bool:
        """Whether the provider seems to fail everybody: the breaker is open, or half way there."""
        return self._breaker.failures >= _FAILING or self._breaker.state != "closed"

    def attempt(self, tokens: int | Callable[[], int] = 0, *, retry: bool = False) -> Attempt:
        """A context manager around one attempt.

        Args:
            tokens: What it is expected to use: a number, or a function that is asked when its turn comes,
                so that a long line is not charged what was believed when it formed.
            retry: Whether it repeats one that failed. Retries come out of a budget, and may wait for it.
        """
        return Attempt(self, tokens, retry)

    def restrict(self, settings: LaneSettings) -> None:
        """Take on the stricter of the limits it has and these; each change is told."""
        before, old = self._kept, self.settings
        self.settings = old.stricter(settings)
        self._kept = self._stricter_of_both()
        why = "the stricter of two settings"
        now = clock.now()
        self._told(now, before, self._kept, why)
        if old.concurrency != self.settings.concurrency and self.settings.concurrency != "auto":
            known = old.concurrency if isinstance(old.concurrency, int) else None
            self._say(LimitChanged(self.name, now, "concurrency", known, self.limit, why))
        self._fit(old.concurrency if isinstance(old.concurrency, int) else START)  # from what held until now
        highest = self.settings.highest
        if self._auto is not None and highest is not None and highest < self._auto.highest:
            self._changed(now, self._auto.cap(highest))

    def probe(self) -> None:
        """Where the lane is stopped, let one attempt find out whether it still has to be."""
        if self._stopped is not None:
            self._stopped = None
            self._breaker.probe(clock.now())

    def statistics(self) -> LaneStatistics:
        """What the lane is doing now, and has done."""
        now = clock.now()
        return LaneStatistics(
            name=self.name,
            state=self._state(now),
            limit=self.limit,
            best_known=self._auto.best if self._auto is not None else None,
            running=self._running,
            waiting=len(self._line) + len(self._retry_line),
            started=self._started,
            succeeded=self._succeeded,
            refused=self._refused,
            failed=self._failed,
            pauses=self._pause.waves,
            resumes_in=max(0.0, min(max(self._pause.until, self._empty_until) - now, 1e9)),
            requests_last_minute=self._quotas.used(now, "requests"),
            tokens_last_minute=self._quotas.used(now, "tokens"),
        )

    def __repr__(self) -> str:
        return f"<RateLane {describe(self.statistics(), self._kept)}>"

    # What follows is called by attempts. ------------------------------------------------------------------

    async def enter(self, attempt: Attempt) -> None:
        if self._stopped is not None:
            raise refused_unsent(self._stopped, self.name)
        now = clock.now()
        if attempt.retry and (self._retry_line or self._admit_retry(attempt, now) is not None):
            await self._stand(self._retry_line, attempt, "retry budget")
            if self._stopped is not None:  # meanwhile
                raise refused_unsent(self._stopped, self.name)
            now = clock.now()
        if not self._line and self._admit(attempt, now) is None:
            return
        reason = "pause" if max(self._pause.until, self._breaker.ready_at()) > now else "limit"
        await self._stand(self._line, attempt, reason)

    async def _stand(self, line: Line[Attempt], attempt: Attempt, reason: str) -> None:
        try:
            async with waiting(reason):
                await line.wait(attempt)
        except BaseException:
            if attempt.number:  # its turn came, and was not taken
                self.leave(attempt, Ending.UNSENT, None)
            raise
        if attempt.denied is not None:
            raise refused_unsent(attempt.denied, self.name)

    def _admit_retry(self, attempt: Attempt, now: float) -> float | None:
        ready = self._retries.ready_at(now)
        if ready > now:
            return ready
        self._retries.take(now)
        return None

    def _admit(self, attempt: Attempt, now: float) -> float | None:
        """Start an attempt, or say when to ask again."""
        auto = self._auto
        if auto is not None:
            self._changed(now, auto.grow(now))
        limit = self.limit
        if limit is not None and self._running >= limit:
            return math.inf if auto is None else auto.ready_at()
        ready = max(self._pause.until, self._breaker.ready_at())
        if now < self._pace_until:
            ready = max(ready, self._pace)
        if ready > now:
            return ready
        tokens = attempt.tokens() if callable(attempt.tokens) else attempt.tokens
        ready = self._quotas.ready_at(now, tokens)
        if self._quotas.reports.any:
            ready = max(ready, self._left_at(now, tokens))
        if ready > now:
            return ready
        self._started += 1
        self._running += 1
        attempt.number = self._started
        attempt.at = now
        attempt.at_once = self._running
        attempt.probe = self._breaker.started()
        attempt.charged = self._quotas.take(now, tokens)
        if now < self._pace_until:
            self._pace = max(self._pace, now) + self._spacing
        if not attempt.retry:
            self._retries.started()
            if self._retry_line:
                self._retry_line.move()
        return None

    def leave(self, attempt: Attempt, ending: Ending, error: BaseException | None) -> None:
        now = clock.now()
        at_once, self._running = self._running, self._running - 1
        self._settle(now, attempt, ending)
        if ending is Ending.SERVED:
            self._served(now, attempt, at_once)
        elif ending is Ending.REFUSED and isinstance(error, RateLimitedError):
            self._refusal(now, attempt, error)
        elif ending is Ending.DENIED and isinstance(error, Exception):
            if self._stops_when_denied:
                self._breaker.answered(attempt.number)
                self._stop(now, error)
            else:
                self._answered(now, attempt)
        elif ending in (Ending.FAILED, Ending.CUT, Ending.UNREACHABLE) and isinstance(error, Exception):
            self._failure(now, attempt, error)
        elif ending is Ending.ANSWERED:
            self._answered(now, attempt)
        elif attempt.probe:
            self._breaker.abandoned()
        self._line.move()

    def _settle(self, now: float, attempt: Attempt, ending: Ending) -> None:
        used = attempt.reported
        if used is None and ending not in (Ending.SERVED, Ending.CUT):
            used = 0
        if attempt.charged is not None:
            sent = ending not in (Ending.UNSENT, Ending.UNREACHABLE)
            self._quotas.settle(now, attempt.charged, used, sent=sent)

    def _served(self, now: float, attempt: Attempt, at_once: int) -> None:
        self._succeeded += 1
        self._pause.served(attempt.number)
        self._answered(now, attempt)
        if self._auto is not None and attempt.number > self._cut_after:
            self._changed(now, self._auto.succeeded(now, seconds=now - attempt.at, at_once=at_once))
            self._changed(now, self._auto.grow(now))

    def _answered(self, now: float, attempt: Attempt) -> None:
        opened = self._breaker.opened_at
        if self._breaker.answered(attempt.number):
            self._ramp(now, 0.0 if opened is None else now - opened)
        until = max(self._pause.until, self._empty_until)
        if self._quiet and self._breaker.state == "closed" and now >= until:
            self._quiet = False
            self._say(LaneResumed(self.name, now))

    def _refusal(self, now: float, attempt: Attempt, error: RateLimitedError) -> None:
        self._refused += 1
        if self._breaker.answered(attempt.number):  # it refuses, so it is alive
            self._quiet = True
        quota = attempt.charged is not None and self._quotas.used_up(attempt.charged)
        auto = None if quota else self._auto  # the number at once is not what was too much
        room = auto is None or self._running < auto.limit * CUT
        until = self._pause.until
        wave = self._pause.refused(
            now,
            call=attempt.number,
            newest=self._started,
            asked=error.retry_after,
            blocked=not room,
            round_trip=None if auto is None else auto.round_trip,
        )
        if wave is None:
            if auto is not None:
                auto.refused_again(at_once=attempt.at_once)
            if self._pause.until > until:
                self._ramp(self._pause.until, self._pause.until - now)
            return
        if auto is not None and wave.first:
            self._cut_after = self._started
            self._changed(now, auto.refused(now, at_once=attempt.at_once, pause=wave.seconds))
        if wave.seconds:
            self._quiet = True
            self._ramp(self._pause.until, wave.seconds)
            why = "refused (429)" + (": the provider's quota is used up" if quota else "")
            self._say(LanePaused(self.name, now, wave.seconds, why))

    def heard(self, attempt: Attempt, headers: Mapping[str, str]) -> None:
        """An answer has come, and may report quotas."""
        now = clock.now()
        if attempt.charged is None or not self._quotas.heard(now, attempt.charged, headers):
            return
        before, self._kept = self._kept, self._stricter_of_both()
        self._quotas.follow(now, attempt.charged, self._kept)
        self._told(now, before, self._kept, "the provider's headers say so")

    def _left_at(self, now: float, tokens: int) -> float:
        """When what is left of the provider's quotas lets a call start."""
        ready = self._quotas.left_at(now, tokens)
        if ready <= now:
            self._empty_until = -math.inf
        elif ready - max(now, self._empty_until) >= _TOLD_FROM:
            self._empty_until = ready
            self._quiet = True
            why = "nothing is left of the provider's quota, its headers say"
            self._say(LanePaused(self.name, now, ready - now, why))
        return ready

    def _failure(self, now: float, attempt: Attempt, error: Exception) -> None:
        self._failed += 1
        if self._auto is not None:
            self._auto.failed()
        if not self._breaker.failed(now, attempt.number, probe=attempt.probe):
            return
        patience = PATIENCE if self._succeeded else PATIENCE_UNHEARD
        opened = self._breaker.opened_at
        if opened is not None and now - opened >= patience:
            self._stop(now, error)
            return
        self._quiet = True
        seconds = self._breaker.ready_at() - now
        reason = f"{self._breaker.failures} failures in a row: {error}"[:300]
        self._say(LanePaused(self.name, now, seconds, reason))
        if opened == now:  # once for each time that it goes down: nobody may be listening to events
            _log.warning("asyncflow: %s: %s. Calls wait; one is tried in %g s", self.name, reason, seconds)

    def _stop(self, now: float, error: Exception) -> None:
        if self._stopped is not None:
            return
        self._stopped = copy.copy(error)  # without its traceback, which would keep frames alive
        self._quiet = True
        self._say(LaneStopped(self.name, now, self._stopped))
        for attempt in (*self._line.dissolve(), *self._retry_line.dissolve()):
            attempt.denied = self._stopped

    def _ramp(self, wake: float, seconds: float) -> None:
        """When the lane wakes, start calls one after the other, over a while, and not all at once."""
        length = Pause.ramp(seconds)
        calls = self.limit if self.limit is not None else max(self._running, len(self._line))
        self._pace = wake
        self._pace_until = wake + length
        self._spacing = length / max(calls, 1)

    def _fit(self, start: int = START) -> None:
        """Bring the rules in line with the settings; what they have counted so far is kept."""
        settings = self._kept
        self._quotas.keep(settings)
        if settings.concurrency == "auto" and self._auto is None:
            self._auto = Adaptive(start=start, highest=settings.highest or HIGHEST)

    def _stricter_of_both(self) -> LaneSettings:
        """The settings, and what the provider reports where that is stricter."""
        stricter = self.settings.stricter(self._quotas.reports.learnt)
        return replace(self.settings, **{name: getattr(stricter, name) for name in PER_MINUTE})

    def _state(self, now: float) -> str:
        if self._stopped is not None:
            return "stopped"
        if self._breaker.state != "closed":
            return "down" if self._breaker.state == "open" else "probing"
        return "paused" if max(self._pause.until, self._empty_until) > now else "open"

    def _told(self, now: float, old: LaneSettings, new: LaneSettings, why: str) -> None:
        for what in PER_MINUTE:
            before, after = getattr(old, what), getattr(new, what)
            if before != after:
                self._say(LimitChanged(self.name, now, what, before, after, why))

    def _changed(self, now: float, change: Change | None) -> None:
        if change is not None:
            self._say(LimitChanged(self.name, now, "concurrency", change.old, change.new, change.reason))

    def _say(self, event: Event) -> None:
        if self._tell is not None:
            self._tell(event)
