"""What a run counts, over all that it has done and all that is at work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from asyncflow.events import Statistics
from asyncflow.outcome import Spent


class Counted(Protocol):
    """Whoever counts items while it is at work: a pool's tally."""

    succeeded: int
    failed: int
    skipped: int
    recalled: int
    retries: int
    waiting: int

    @property
    def started(self) -> int: ...
    @property
    def cancelled(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def parked(self) -> int: ...
    @property
    def halted(self) -> bool:
        """Whether nothing more may begin."""


class Counts:
    """What a run has counted; `pools` that are at work are added when somebody asks."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.started = self.succeeded = self.failed = self.skipped = self.retries = self.steps = 0
        self.cancelled = self.recalled = 0
        self.spent = Spent()
        self.loop_lag = 0.0
        self.pools: set[Counted] = set()
        #: What the journal has refused to keep anything with: no item's own failure, wherever it is met.
        self.refusals: list[BaseException] = []
        self._now = now
        self._began = now()

    def add(self, pool: Counted) -> None:
        """Keep what a pool has counted, once it is done."""
        self.pools.discard(pool)
        self.started += pool.started
        self.succeeded += pool.succeeded
        if pool.started != pool.succeeded or pool.recalled or pool.retries:
            self.failed += pool.failed
            self.skipped += pool.skipped
            self.cancelled += pool.cancelled
            self.recalled += pool.recalled
            self.retries += pool.retries

    def refused(self, error: BaseException) -> None:
        """The journal has raised `error`: nothing is kept any more."""
        if not self.is_refusal(error):
            self.refusals.append(error)

    def is_refusal(self, error: BaseException) -> bool:
        """Whether `error` is the journal's own, not an item's."""
        return any(error is refusal for refusal in self.refusals)

    @property
    def _singles(self) -> int:
        """Items in flight that no pool holds: single nodes'. A pool's are added when it has ended."""
        return self.started - self.succeeded - self.failed - self.skipped - self.cancelled

    def statistics(self) -> Statistics:
        """A frozen copy of the counts at this moment."""
        pools = tuple(self.pools)
        return Statistics(
            started=self.started + sum(pool.started for pool in pools),
            succeeded=self.succeeded + sum(pool.succeeded for pool in pools),
            failed=self.failed + sum(pool.failed for pool in pools),
            skipped=self.skipped + sum(pool.skipped for pool in pools),
            cancelled=self.cancelled + sum(pool.cancelled for pool in pools),
            in_flight=self._singles + sum(pool.in_flight for pool in pools),
            waiting=sum(pool.waiting for pool in pools),
            parked=sum(pool.parked for pool in pools),
            recalled=self.recalled + sum(pool.recalled for pool in pools),
            retries=self.retries + sum(pool.retries for pool in pools),
            steps=self.steps,
            seconds=self._now() - self._began,
            loop_lag=self.loop_lag,
        )
