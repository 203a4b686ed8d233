"""What becomes of a pool's items: counted, handed on, and held against `on_error`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asyncflow.engine.context import Run
from asyncflow.engine.failure import describe, explain, release_frames
from asyncflow.engine.intake import Intake
from asyncflow.engine.on_error import OnError
from asyncflow.errors import TooManyFailuresError
from asyncflow.events import ItemFinished, Statistics
from asyncflow.outcome import Failed, Ok, Outcome, Skipped


class Tally:
    """See the module. Implements `counts.Counted`.

    Args:
        name: What people call the step.
        run: The run that the pool is part of.
        intake: Where its items come in.
        length: How many there are, or None where that is not known.
        on_error: When failures end the call.
        results: A list to fill in input order with values (and `Failed` where failures are kept), or
        deliver: a function that takes each outcome as it comes.
        stop: Called with what the call ends with, at a failure too many.

    Attributes:
        dropped: Items that were taken and given up without an outcome.
        cut: Whether anything was left undone.
    """

    __slots__ = (
        "_began",
        "_deliver",
        "_ended",
        "_intake",
        "_length",
        "_name",
        "_on_error",
        "_results",
        "_run",
        "_stop",
        "cut",
        "dropped",
        "failed",
        "recalled",
        "retries",
        "skipped",
        "succeeded",
        "waiting",
    )

    def __init__(
        self,
        name: str,
        run: Run,
        intake: Intake,
        *,
        length: int | None,
        on_error: OnError,
        results: list[Any] | None,
        deliver: Callable[[Any], None] | None,
        stop: Callable[[BaseException], None],
    ) -> None:
        self._name = name
        self._run = run
        self._intake = intake
        self._length = length
        self._on_error = on_error
        self._results = results
        self._deliver = deliver
        self._stop = stop
        self._began = run.host.now()
        self.succeeded = 0
        self.failed = 0
        self.skipped = 0
        self.dropped = 0
        self.retries = 0
        self.recalled = 0
        self.waiting = 0
        self.cut = False
        self._ended = False

    def show(self, outcome: Outcome[Any]) -> None:
        """Count an outcome and hand it on; end the call if it is a failure too many."""
        run = self._run
        if run.tell is not None:
            run.tell(ItemFinished(run.path, run.host.now(), outcome, run.branches))
        if isinstance(outcome, Ok):
            self.succeeded += 1
        elif isinstance(outcome, Skipped):
            self.skipped += 1
        else:
            self.failed += 1
            if not self._on_error.keep:
                explain(outcome.error, self._name, outcome.attempts, outcome.index, outcome.item)
                self._stop(outcome.error)
                return
            release_frames(outcome.error)
        if self._results is not None:
            self._results[outcome.index] = outcome.value if isinstance(outcome, Ok) else outcome
        elif self._deliver is not None:
            self._deliver(outcome)
        if isinstance(outcome, Failed):
            self._stop_if_enough(outcome)

    def _stop_if_enough(self, last: Failed) -> None:
        ended = self.failed + self.succeeded
        if self._on_error.enough(self.failed, ended, self._length):
            self._stop(
                TooManyFailuresError(
                    f"{self._name}: {self.failed} items have failed, of {ended} that ended; the last was "
                    f"item {last.index}: {describe(last.error)}"
                )
            )

    def close(self) -> None:
        """The pool is done: what has no outcome now was cut off."""
        self._ended = True
        del self._stop

    # What has been counted.

    @property
    def started(self) -> int:
        return self._intake.started

    @property
    def halted(self) -> bool:
        """Whether no attempt may begin any more."""
        return self._intake.parking.halted

    @property
    def parked(self) -> int:
        """Items between two attempts."""
        return 0 if self._ended else len(self._intake.parking)

    @property
    def in_flight(self) -> int:
        """Items that a worker holds."""
        return 0 if self._ended else self._unfinished - self.parked

    @property
    def cancelled(self) -> int:
        """Items that were cut off when the call ended."""
        return self.dropped + (self._unfinished if self._ended else 0)

    @property
    def _unfinished(self) -> int:
        return self.started - self.succeeded - self.failed - self.skipped - self.dropped

    def statistics(self) -> Statistics:
        """A frozen copy of the counts at this moment."""
        return Statistics(
            started=self.started,
            succeeded=self.succeeded,
            failed=self.failed,
            skipped=self.skipped,
            cancelled=self.cancelled,
            in_flight=self.in_flight,
            waiting=self.waiting,
            parked=self.parked,
            recalled=self.recalled,
            retries=self.retries,
            seconds=self._run.host.now() - self._began,
        )
