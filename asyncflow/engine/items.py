"""The bounded pool: one step over a stream of items, at most `concurrency` at a time.

Workers, not a task per item: each takes the next item, runs it, hands the result on, and takes the next.
Tasks and memory grow with concurrency, never with the number of items. An item between two attempts is
parked in a heap, so no worker stands still for it; at most `concurrency` are parked, past which nothing
is taken from the source.

Context variables that an item sets are not seen by the next: a worker whose context an item has changed
retires, and a fresh one takes its place. That costs a comparison an item, where a task or a context of its
own for each item would double its price.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import replace
from functools import partial
from types import CoroutineType
from typing import Any

from asyncflow.clock import SYSTEM
from asyncflow.engine.alone import Alone, Turns
from asyncflow.engine.attempt import attempt, fall_back, refuse_coroutine, retrying, wait_after
from asyncflow.engine.context import Run
from asyncflow.engine.failure import (
    add_note,
    crashed_outcome,
    describe,
    explain,
    failed_outcome,
    left_undone,
    own_error,
    release_frames,
    skipped_outcome,
)
from asyncflow.engine.journal import GRACE, Place
from asyncflow.engine.on_error import RAISE, OnError
from asyncflow.engine.parking import Parked, Parking
from asyncflow.engine.slot import Deadlines, Slot
from asyncflow.engine.source import END, Source
from asyncflow.engine.step import Mode, Step
from asyncflow.engine.stopping import Halted
from asyncflow.engine.tasks import Crew, LoneCrew, Waker
from asyncflow.errors import BudgetSpentError, StoreError, TooManyFailuresError
from asyncflow.events import ItemFinished, NodeFinished, NodeStarted, Statistics
from asyncflow.outcome import Failed, Ok, Outcome, Skipped
from asyncflow.threads import ThreadPool
from asyncflow.waiting import current


class Pool:
    """See the module.

    Args:
        step: What is done with each item.
        source: Where they come from; the pool closes it.
        run: The run it is part of.
        concurrency: Items at work at the same time.
        on_error: When failures stop it.
        results: A list to fill in input order with values (and `Failed` where failures are kept), or
        deliver: a function that takes each outcome as it comes.
        window: How many items may be started and not yet received (see `received`); None: any number.
    """

    __slots__ = (
        "_all_committed",
        "_base",
        "_began",
        "_crew",
        "_cut",
        "_deadlines",
        "_deliver",
        "_detour",
        "_dropped",
        "_ended",
        "_exhausted",
        "_give_up",
        "_guarded",
        "_idle",
        "_ledger",
        "_lost",
        "_most",
        "_most_uncommitted",
        "_on_error",
        "_parking",
        "_pulling",
        "_results",
        "_slots",
        "_threads",
        "_turns",
        "_uncommitted",
        "_until",
        "_workers",
        "concurrency",
        "error",
        "failed",
        "place",
        "recalled",
        "retries",
        "skipped",
        "source",
        "started",
        "step",
        "succeeded",
        "waiting",
    )

    def __init__(
        self,
        step: Step,
        source: Source,
        run: Run,
        *,
        concurrency: int,
        on_error: OnError = RAISE,
        results: list[Any] | None = None,
        deliver: Callable[[Any], None] | None = None,
        window: int | None = None,
    ) -> None:
        self.step = step
        self.place = run
        self.source = source
        self.concurrency = concurrency
        self.error: BaseException | None = None
        self.started = 0
        self.succeeded = 0
        self.failed = 0
        self.skipped = 0
        self.retries = 0
        self.recalled = 0
        self.waiting = 0
        self._began = run.host.now()
        self._on_error = on_error
        self._results = results
        self._deliver = deliver
        #: Taking from the source stops at this many started items.
        self._until: float = math.inf if window is None else window
        self._guarded = step.guarded(run)
        self._base = copy_context()
        self._crew: Crew | None = None
        self._workers = 0
        self._most = concurrency if source.length is None else min(concurrency, source.length)
        self._slots: set[Slot] = set()
        self._deadlines = Deadlines(run.host, self._slots) if step.timed else None
        self._threads = ThreadPool(concurrency) if step.mode is Mode.THREAD else None
        self._ledger: Place | None = None
        #: Whether there was a ledger that keeps nothing any more.
        self._lost = False
        if run.journal is not None and step.exec:
            self._ledger = run.place(step.key, step.call, step.result_type)
        #: The gate that all pass in a run with suspects.
        self._turns: Turns | None = None
        if run.alone is not None and self._ledger is not None:
            self._turns = Turns(Alone() if run.host.blocking else run.alone, self._wake_all)
        self._uncommitted = 0
        self._most_uncommitted = max(64, concurrency)
        self._give_up: Callable[[], None] | None = None
        #: Items that were taken and given up without an outcome, and whether anything was left undone.
        self._dropped = 0
        self._cut = False
        self._all_committed: Waker | None = None
        self._exhausted = False
        self._ended = False
        self._pulling = False
        self._parking = Parking(run.host, self._came_due)
        self._idle: deque[Waker] = deque()
        #: Whether the next item cannot simply be taken from the source. Kept by `_review`, so that the hot
        #: path makes one test.
        self._detour = source.next is None or self._turns is not None

    # What it is doing.

    @property
    def parked(self) -> int:
        """Items between two attempts."""
        return 0 if self._ended else len(self._parking)

    @property
    def halted(self) -> bool:
        """Whether no attempt may begin any more."""
        return self._parking.halted

    @property
    def in_flight(self) -> int:
        """Items that a worker holds."""
        return 0 if self._ended else self._unfinished

    @property
    def cancelled(self) -> int:
        """Items that were cut off when the call ended."""
        return self._dropped + (self._unfinished + self.parked if self._ended else 0)

    @property
    def _unfinished(self) -> int:
        ended = self.succeeded + self.failed + self.skipped + self._dropped
        return self.started - ended - self.parked

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
            seconds=self.place.host.now() - self._began,
        )

    # Running it.

    async def run(self) -> None:
        """Run all items, then close the source.

        Raises:
            The first failure, or TooManyFailuresError, as `on_error` says; what the source raised;
            Halted, if the run was asked to stop and something was left to do.
        """
        place = self.place
        counts, tell, host = place.counts, place.tell, place.host
        if self.step.exec:
            counts.pools.add(self)
        if tell is not None:
            tell(NodeStarted(place.path, host.now(), self.source.length, self.concurrency))
        deaf = place.stop.listen(host, self.drain) if place.stop is not None else None
        try:
            async with LoneCrew(host) if self._most <= 1 else host.crew(self._halt) as self._crew:
                # Where the number of items is known, as many start at once; else each brings two more.
                self._hire(1 if self.source.length is None else self._most)
        finally:
            if self._uncommitted:
                self._all_committed = host.waker()
                if (cancelled := await host.outlast(self._all_committed)) is not None:
                    self.error = cancelled
            if self._ledger is not None:
                self._ledger.leave()
            if deaf is not None:
                deaf()
            if self._turns is not None:
                self._turns.close()
            if self._cut and self.error is None:
                self.error = Halted()
            self._ended = True
            self._parking.close()
            if self._give_up is not None:
                self._give_up()
            if self._deadlines is not None:
                self._deadlines.close()
            if self.step.exec:
                counts.add(self)
            try:
                await self.source.aclose()
            except Exception as exc:
                self.error = self.error or exc
            if tell is not None:
                tell(NodeFinished(place.path, host.now(), self.error))
        if self.error is not None:
            raise self.error

    def stop(self, error: BaseException) -> None:
        """End everything now; `error` is what the call raises, unless another one came first."""
        if self.error is None or (isinstance(self.error, Halted) and isinstance(error, Exception)):
            self.error = error
        spare = self._halt()
        if self._crew is None:
            return
        if self._ledger is not None and isinstance(error, Exception):
            # What is in flight is paid for: it may end, and is committed.
            if self._give_up is None:  # the grace of the first failure is that of all
                self._give_up = self.place.host.call_later(GRACE, self._crew.cancel)
            self._over()
            self._leave_source()
        else:
            self._crew.cancel(spare)

    def _halt(self) -> set[object]:
        """Begin nothing more: neither new items nor parked ones.

        Returns:
            The workers whose calls a timeout has already cancelled: their cleanup may still await.
        """
        self._exhausted = True
        self._dropped += self._parking.halt() + (self._turns.give_up() if self._turns is not None else 0)
        self._review()
        ending = {slot.interrupt.ending() for slot in self._slots if slot.interrupt is not None}
        ending.discard(None)
        return ending

    def drain(self) -> None:
        """The run is asked to stop: begin nothing more, and let what is at work end."""
        source = self.source
        all_taken = self._exhausted or (source.length is not None and self.started >= source.length)
        if self._parking or self._turns or not all_taken:
            self._cut = True
        self._halt()
        self._over()
        self._leave_source()

    def _leave_source(self) -> None:
        """Where nothing is left at work but the wait for an item that will not be begun, end that wait."""
        ending = self._cut or (self.error is not None and self._exhausted)
        if ending and self._pulling and self._workers == 1 and self._crew is not None:
            self.error = self.error or Halted()
            self._crew.cancel()

    def _asked_to_stop(self) -> bool:
        """Asked before each item is begun: who calls `drain` is the host, and it may have had no turn yet."""
        if self.place.stop is None or not self.place.stop.asked:
            return False
        self.drain()
        return True

    def _take_unless_stopped(self) -> Any:
        if self._asked_to_stop():
            raise StopIteration
        return self.source.next()  # type: ignore[misc]  # as in _work: there is one, but for a detour

    def received(self) -> None:
        """The reader has taken one more outcome, so one more item may start."""
        self._until += 1
        self._wake_one()

    def _hire(self, count: int, context: Context | None = None) -> None:
        """Start workers, up to the most that make sense, each in a copy of `context`, or of the caller's."""
        assert self._crew is not None
        for _ in range(min(count, self._most - self._workers)):
            self._workers += 1
            self._crew.start(self._work, context=copy_context() if context is None else context.copy())

    async def _work(self) -> None:
        """A worker: item after item. It raises nothing but a cancellation."""
        step, place, results = self.step, self.place, self._results
        call, take, now, ledger = step.call, self.source.next, SYSTEM.now, self._ledger
        if place.stop is not None and take is not None:
            take = self._take_unless_stopped
        guarded, awaits = self._guarded, step.mode is Mode.AWAIT
        plain = ledger is None and place.tell is None
        pulse, patient = place.pulse, not (place.host.blocking or step.atomic)
        last = math.inf if self.source.length is None else self.source.length
        changed = False
        slot = Slot(place, step, self._deadlines, self._threads, self)
        current.set(slot)
        before = copy_context()
        if self._deadlines is not None:
            self._slots.add(slot)
        try:
            while True:  # CPython 3.11 specialises a loop early only where its end jumps back unasked
                # Take an item.
                if self._detour or self.started >= self._until:
                    if self._over() or (parked := await self._next()) is None:
                        return
                    index, item, slot.attempt = parked.index, parked.item, parked.attempt
                    slot.total_deadline, slot.key = parked.total_deadline, parked.key
                    slot.spent = parked.spent
                else:
                    try:
                        item = take()  # type: ignore[misc]  # None only on a detour
                    except StopIteration:
                        self._exhausted = self._detour = True
                        continue
                    except Exception as exc:
                        self._source_failed(exc)
                        continue
                    index, slot.attempt, slot.total_deadline = self.started, 1, math.inf
                    self.started = index + 1
                    if results is not None:
                        results.append(None)
                if self._workers < self._most and not self._exhausted:
                    self._hire(2, self._base)
                # Run it.
                slot.index, slot.item = index, item
                if ledger is not None and slot.attempt == 1 and await self._recalled(ledger, slot):
                    continue
                try:
                    if guarded:
                        value = await attempt(slot, item)
                    elif awaits:
                        value = await call(item)
                    elif type(value := call(item)) is CoroutineType:
                        refuse_coroutine(value, step.name)
                except BaseException as exc:
                    await self._attempt_failed(slot, exc)
                else:
                    if results is not None and plain:
                        self.succeeded += 1
                        results[index] = value
                    else:
                        self._end(slot, Ok(value, index, slot.name, item, slot.attempt))
                # Leave no traces, and the loop to others.
                try:
                    changed = copy_context() != before
                except Exception:  # the values in it may not be comparable
                    changed = True
                if changed:
                    return
                if patient and now() >= pulse.rest and self.started < last:
                    await pulse.let_others_run()
        except BaseException as exc:
            # A cancellation, Ctrl-C, an exit, a store that fails: not an item's failure. The call raises it.
            if ledger is not None and isinstance(exc, StoreError):
                self._ledger_lost(exc)
            else:
                self.stop(exc)
            if place.host.cancelled(exc):
                raise
        finally:
            if self._deadlines is not None:
                self._slots.discard(slot)
            self._workers -= 1
            if changed:
                self._hire(1, self._base)
            if self._cut or self.error is not None:
                self._leave_source()
            self._crew.leave()  # type: ignore[union-attr]  # there is one while there are workers

    def _over(self) -> bool:
        """Whether no worker will find another item. Those that wait for one are told."""
        if not self._exhausted or self._parking or self._turns:
            return False
        while self._idle:
            self._idle.popleft().set()
        return True

    async def _next(self) -> Parked | None:
        """The next item by the longer way: one whose wait is over, or from a source that may wait."""
        while not self._asked_to_stop() and not self._over():
            if self._parking.due:
                parked = self._parking.take()
                self._review()
                self._wake_one()  # fewer are parked: there may be room for one more from the source
                return parked
            if self._turns and (kept := self._turns.next()) is not None:
                return kept
            room = (
                self.started < self._until
                and len(self._parking) < self.concurrency
                and not (self._turns is not None and self._turns.closed)
                and self._uncommitted < self._most_uncommitted
            )
            if self._exhausted or self._pulling or not room:
                await self._wait()
                continue
            self._pulling = True
            try:
                item = await self.source.pull()
            except Exception as exc:
                self._source_failed(exc)
                continue
            finally:
                self._pulling = False
                self._wake_one()
            if item is END:
                self._exhausted = True
                self._review()
                continue
            if self._asked_to_stop() or self._exhausted:  # meanwhile: nothing more begins
                return None
            index = self.started
            self.started = index + 1
            if self._results is not None:
                self._results.append(None)
            return Parked(index, item, 1, math.inf)
        return None

    async def _wait(self) -> None:
        """Until something may have changed for `_next`."""
        waker = self.place.host.waker()
        self._idle.append(waker)
        try:
            await waker.wait()
        finally:
            if waker in self._idle:
                self._idle.remove(waker)

    def _wake_one(self) -> None:
        if self._idle:
            self._idle.popleft().set()

    def _wake_all(self) -> None:
        for _ in range(len(self._idle)):
            self._wake_one()

    def _came_due(self, count: int) -> None:
        for _ in range(count):
            self._wake_one()
        self._review()

    def _review(self) -> None:
        self._detour = bool(
            self.source.next is None
            or self._turns is not None
            or self._exhausted
            or self._parking.due
            or len(self._parking) >= self.concurrency
            or self._uncommitted >= self._most_uncommitted
        )

    # When something fails.

    async def _attempt_failed(self, slot: Slot, exc: BaseException) -> None:
        """Park the item for its next attempt, or end it: by its fallback, or as a failure."""
        if left_undone(slot, exc):
            self._drop(slot)
            return
        error = own_error(slot, exc)
        if error is None:
            raise exc
        if isinstance(error, BudgetSpentError) and self._on_error.keep:
            self._withdraw(slot)
            self._show(skipped_outcome(error, slot))
            return
        try:
            wait = wait_after(slot, error)
            if wait is not None:
                if self._parking.halted:
                    self._drop(slot)
                    return
                self.retries += 1
                retrying(slot, error, wait)
                attempt = slot.attempt + 1
                parked = Parked(slot.index, slot.item, attempt, slot.total_deadline, slot.key, slot.spent)
                slot.spent = None
                self._parking.park(parked, wait)
                self._review()
                return
            value = await fall_back(slot, error)
        except Exception as final:
            self._end(slot, failed_outcome(final, slot))
            return
        self._end(slot, Ok(value, slot.index, slot.name, slot.item, slot.attempt))

    def _drop(self, slot: Slot) -> None:
        """The item is given up without an outcome."""
        self._withdraw(slot)
        self._dropped += 1
        self._cut = True

    def _withdraw(self, slot: Slot) -> None:
        """The item is no longer in flight, and nothing of it is recorded."""
        slot.spent = None
        if self._ledger is not None:
            self._ledger.withdraw(slot.key)
        if self._turns is not None:
            self._turns.leave(slot.key)

    def _end(self, slot: Slot, outcome: Ok[Any] | Failed) -> None:
        """The item has its outcome. It is visible at once, or, with a journal, once it is committed."""
        if self._ledger is None:
            if not self._lost:  # else it will never be committed, so nobody sees it
                self._show(outcome)
            return
        self._uncommitted += 1
        if isinstance(outcome, Failed) and not self._on_error.keep:
            self._halt()  # the call ends with it, once it is committed: nothing more is paid for
        try:
            self._ledger.commit(slot.key, outcome, partial(self._committed, outcome, slot.key), slot.spent)
            slot.spent = None
        except Exception as exc:  # the value cannot be stored: that is what became of the item
            self._uncommitted -= 1
            if isinstance(outcome, Failed) or isinstance(exc, StoreError):
                self._ledger_lost(exc)
            else:
                self._end(slot, failed_outcome(exc, slot))
        if self._uncommitted >= self._most_uncommitted:
            self._review()

    def _committed(self, outcome: Ok[Any] | Failed, key: bytes, error: BaseException | None) -> None:
        self._uncommitted -= 1
        if self._turns is not None:
            self._turns.leave(key)
        if error is None:
            self._show(outcome)
        else:
            self._ledger_lost(error)
        self._review()
        self._wake_one()
        if not self._uncommitted and self._all_committed is not None:
            self._all_committed.set()

    def _ledger_lost(self, error: BaseException) -> None:
        """Nothing is kept any more, so nothing goes on: what is in flight is cut off."""
        self._ledger, self._lost = None, True
        self.place.counts.refused(error)
        self.stop(error)

    async def _recalled(self, ledger: Place, slot: Slot) -> bool:
        """Whether the item does not run: an earlier process has its outcome, which is handed on."""
        if self._turns is not None and slot.key:  # it was kept at the gate, and may begin
            ledger.begin(slot.key)
            return False
        slot.key = ledger.key_of(slot.item)
        if ledger.has_records:
            kept = await ledger.recall(slot.key)
            if kept is not None:
                self.recalled += not isinstance(kept, Skipped)
                self._show(replace(kept, index=slot.index, key=slot.name, item=slot.item))
                if SYSTEM.now() >= self.place.pulse.rest:  # reading back may never suspend
                    await self.place.pulse.let_others_run()
                return True
            if self._parking.halted:  # meanwhile
                self._drop(slot)
                return True
        if self._turns is not None and not self._passes(self._turns, slot):
            return True
        ledger.begin(slot.key)
        return False

    def _passes(self, turns: Turns, slot: Slot) -> bool:
        """Whether the item may begin now, in a run with suspects."""
        verdict = self._ledger.verdict(slot.key) if self._ledger is not None else "run"
        if verdict == "quarantine":
            self._end(slot, crashed_outcome(slot))
            return False
        return turns.admits(Parked(slot.index, slot.item, 1, math.inf, slot.key), verdict)

    def _show(self, outcome: Outcome[Any]) -> None:
        """Hand an outcome on, and stop if it is a failure too many."""
        if self.place.tell is not None:
            self.place.tell(ItemFinished(self.place.path, self.place.host.now(), outcome))
        if isinstance(outcome, Ok):
            self.succeeded += 1
        elif isinstance(outcome, Skipped):
            self.skipped += 1
        else:
            self.failed += 1
            if not self._on_error.keep:
                explain(outcome.error, self.step.name, outcome.attempts, outcome.index, outcome.item)
                self.stop(outcome.error)
                return
            release_frames(outcome.error)
        if self._results is not None:
            self._results[outcome.index] = outcome.value if isinstance(outcome, Ok) else outcome
        elif self._deliver is not None:
            self._deliver(outcome)
        ended = self.failed + self.succeeded
        if isinstance(outcome, Failed) and self._on_error.enough(self.failed, ended, self.source.length):
            self.stop(
                TooManyFailuresError(
                    f"{self.step.name}: {self.failed} items have failed, of {ended} that ended; the last was "
                    f"item {outcome.index}: {describe(outcome.error)}"
                )
            )

    def _source_failed(self, error: Exception) -> None:
        """Nothing more will come. What is at work is finished first where somebody receives it."""
        add_note(error, f"asyncflow: {self.step.name}: raised by the source of items, at item {self.started}")
        if self._results is not None and not self._on_error.keep:
            self.stop(error)
        else:
            self.error = self.error or error
            self._exhausted = True
            self._review()


async def collect(
    step: Step, items: Any, run: Run, *, concurrency: int, on_error: OnError, blocking: bool = False
) -> list[Any]:
    """Run all items; their values in input order, with a `Failed` in the place of each failure that is kept.

    Raises:
        As `Pool.run`; a TooManyFailuresError carries every outcome there is.
    """
    source = Source(items, host=run.host, blocking=blocking or step.mode is Mode.THREAD)
    if on_error.count is None and on_error.share is None:
        results: list[Any] = []
        await Pool(step, source, run, concurrency=concurrency, on_error=on_error, results=results).run()
        return results
    outcomes: list[Ok[Any] | Failed] = []
    pool = Pool(step, source, run, concurrency=concurrency, on_error=on_error, deliver=outcomes.append)
    try:
        await pool.run()
    except TooManyFailuresError as exc:
        exc.outcomes = tuple(sorted(outcomes, key=lambda outcome: outcome.index))
        raise
    outcomes.sort(key=lambda outcome: outcome.index)
    return [outcome.value if isinstance(outcome, Ok) else outcome for outcome in outcomes]
