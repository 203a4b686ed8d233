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
from collections.abc import Callable
from contextvars import Context, copy_context
from types import CoroutineType
from typing import Any

from asyncflow.clock import SYSTEM
from asyncflow.engine.attempt import attempt, refuse_coroutine
from asyncflow.engine.context import Run
from asyncflow.engine.failure import (
    add_note,
)
from asyncflow.engine.fate import Fate
from asyncflow.engine.intake import Intake
from asyncflow.engine.journal import GRACE
from asyncflow.engine.ledger import Ledger
from asyncflow.engine.on_error import RAISE, OnError
from asyncflow.engine.slot import Deadlines, Slot
from asyncflow.engine.source import Source
from asyncflow.engine.step import Mode, Step
from asyncflow.engine.stopping import Halted
from asyncflow.engine.tally import Tally
from asyncflow.engine.tasks import Crew, LoneCrew
from asyncflow.errors import StoreError, TooManyFailuresError
from asyncflow.events import NodeFinished, NodeStarted, Statistics
from asyncflow.outcome import Failed, Ok
from asyncflow.threads import ThreadPool
from asyncflow.waiting import current


class Pool:
    """See the module. What comes next is `Intake`'s to say, what has come of it `Tally`'s, and what a journal
    keeps of it `Ledger`'s; how each item begins and ends, `Fate`'s. Here are the workers.

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
        "_base",
        "_concurrency",
        "_crew",
        "_deadlines",
        "_eager",
        "_error",
        "_fate",
        "_give_up",
        "_guarded",
        "_intake",
        "_ledger",
        "_most",
        "_results",
        "_run",
        "_slots",
        "_source",
        "_step",
        "_tally",
        "_threads",
        "_workers",
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
        self._step = step
        self._run = run
        self._source = source
        self._concurrency = concurrency
        self._results = results
        #: Whether the first error ends it, since nobody receives what is at work.
        self._eager = results is not None and not on_error.keep
        self._error: BaseException | None = None
        self._give_up: Callable[[], None] | None = None
        self._guarded = step.guarded(run)
        self._base = copy_context()
        self._crew: Crew | None = None
        self._workers = 0
        self._most = concurrency if source.length is None else min(concurrency, source.length)
        self._slots: set[Slot] = set()
        self._deadlines = Deadlines(run.host, self._slots) if step.timed else None
        self._threads = ThreadPool(concurrency) if step.mode is Mode.THREAD else None
        self._intake = Intake(source, run, concurrency, window=window, results=results, drain=self.drain)
        self._tally = Tally(
            step.name,
            run,
            self._intake,
            length=source.length,
            on_error=on_error,
            results=results,
            deliver=deliver,
            stop=self.stop,
        )
        self._ledger: Ledger | None = None
        place = run.place(step.key, step.call, step.result_type) if step.exec else None
        if place is not None:
            most = max(64, concurrency)
            show = self._tally.show
            self._ledger = Ledger(place, run, self._intake, most=most, show=show, stop=self.stop)
        self._fate = Fate(self._intake, self._tally, self._ledger, keep=on_error.keep, pulse=run.pulse)

    def statistics(self) -> Statistics:
        """A frozen copy of the counts at this moment."""
        return self._tally.statistics()

    # Running it.

    async def run(self) -> None:
        """Run all items, then close the source.

        Raises:
            The first failure, or TooManyFailuresError, as `on_error` says; what the source raised;
            Halted, if the run was asked to stop and something was left to do.
        """
        run, host, length = self._run, self._run.host, self._source.length
        if self._step.exec:
            run.counts.pools.add(self._tally)
        if run.tell is not None:
            run.tell(NodeStarted(run.path, host.now(), length, self._concurrency, run.branches))
        deaf = run.stop.listen(host, self.drain) if run.stop is not None else None
        try:
            async with LoneCrew(host) if self._most <= 1 else host.crew(self._halt) as self._crew:
                # Where the number of items is known, as many start at once; else each brings two more.
                self._hire(1 if length is None else self._most)
        finally:
            if self._ledger is not None:
                self._error = await self._ledger.settled() or self._error
                self._ledger.close()
            if deaf is not None:
                deaf()
            await self._close()
        if self._error is not None:
            raise self._error

    async def _close(self) -> None:
        """All workers have left: let go of everything, the source at the end.

        What refers back to the pool is let go of too, so that it goes without the garbage collector, which
        costs many small pools more than a third of their time.
        """
        run = self._run
        if self._tally.cut and self._error is None:
            self._error = Halted()
        self._crew = None
        self._tally.close()
        self._intake.close()
        if self._give_up is not None:
            self._give_up()
        if self._deadlines is not None:
            self._deadlines.close()
        if self._step.exec:
            run.counts.add(self._tally)
        try:
            await self._source.aclose()
        except Exception as exc:
            self._error = self._error or exc
        if run.tell is not None:
            run.tell(NodeFinished(run.path, run.host.now(), self._error, run.branches))

    def stop(self, error: BaseException) -> None:
        """End everything now; `error` is what the call raises, unless another one came first."""
        if self._error is None or (isinstance(self._error, Halted) and isinstance(error, Exception)):
            self._error = error
        spare = self._halt()
        if self._crew is None:
            return
        if self._ledger is not None and not self._ledger.lost and isinstance(error, Exception):
            # What is in flight is paid for: it may end, and is committed.
            if self._give_up is None:  # the grace of the first failure is that of all
                self._give_up = self._run.host.call_later(GRACE, self._crew.cancel)
            self._leave_queues()
        else:
            self._crew.cancel(spare)

    def _halt(self) -> set[object]:
        """Begin nothing more: neither new items nor parked ones.

        Returns:
            The workers whose calls a timeout has already cancelled: their cleanup may still await.
        """
        self._fate.halt()
        ending = {slot.interrupt.ending() for slot in self._slots if slot.interrupt is not None}
        ending.discard(None)
        return ending

    def drain(self) -> None:
        """The run is asked to stop: begin nothing more, and let what is at work end."""
        if self._intake.leaves():
            self._tally.cut = True
        self._halt()
        self._leave_queues()

    def _leave_queues(self) -> None:
        """Nothing more begins: whoever waits for an item, or with one for its turn, need not."""
        self._intake.over()
        for slot in self._slots:
            slot.leave_line()
        self._leave_source()

    def _leave_source(self) -> None:
        """Where nothing is left at work but the wait for an item that will not be begun, end that wait."""
        ending = self._tally.cut or (self._error is not None and self._intake.exhausted)
        if ending and self._intake.pulling and self._workers == 1 and self._crew is not None:
            self._error = self._error or Halted()
            self._crew.cancel()

    def received(self) -> None:
        """The reader has taken one more outcome, so one more item may start."""
        self._intake.until += 1
        self._intake.wake_one()

    # The workers.

    def _hire(self, count: int, context: Context | None = None) -> None:
        """Start workers, up to the most that make sense, each in a copy of `context`, or of the caller's."""
        assert self._crew is not None
        for _ in range(min(count, self._most - self._workers)):
            self._workers += 1
            self._crew.start(self._work, context=copy_context() if context is None else context.copy())

    async def _work(self) -> None:
        """A worker: item after item. It raises nothing but a cancellation."""
        step, run, length = self._step, self._run, self._source.length
        intake, fate, tally, ledger = self._intake, self._fate, self._tally, self._ledger
        call, take, now, results = step.call, intake.take, SYSTEM.now, self._results
        direct = results if ledger is None and run.tell is None else None
        guarded, awaits = self._guarded, step.mode is Mode.AWAIT
        pulse, patient = run.pulse, not (run.host.blocking or step.atomic)
        last = math.inf if length is None else length
        slot, spoiled = Slot(run, step, self._deadlines, self._threads, tally), False
        if ledger is not None:
            slot.flight = ledger.place
            slot.place = ledger.place if guarded else None  # an attempt may queue before it begins
        self._slots.add(slot)
        current.set(slot)
        before = copy_context()
        try:
            while True:  # CPython 3.11 specialises a loop early only where its end jumps back unasked
                # Take an item.
                try:
                    if intake.detour or intake.started >= intake.until:
                        if (parked := await intake.next()) is None:
                            return
                        slot.take_up(parked)
                        index, item = parked.index, parked.item
                    else:
                        slot.item = item = take()
                        slot.index = index = intake.started
                        slot.attempt, slot.total_deadline = 1, math.inf
                        intake.started = index + 1
                        if results is not None:
                            results.append(None)
                except StopIteration:
                    intake.end()
                    continue
                except Exception as exc:
                    self._source_failed(exc)
                    continue
                if self._workers < self._most and not intake.exhausted:
                    self._hire(2, self._base)
                # Run it.
                if ledger is not None and slot.attempt == 1 and not await fate.begins(slot):
                    continue
                try:
                    if guarded:
                        value = await attempt(slot, item)
                    elif awaits:
                        value = await call(item)
                    else:
                        value = call(item)
                    if type(value) is CoroutineType:
                        refuse_coroutine(value, step.name, awaited=awaits)
                except BaseException as exc:
                    await fate.failed(slot, exc)
                else:
                    if direct is not None:
                        tally.succeeded += 1
                        direct[index] = value
                    else:
                        fate.end(slot, Ok(value, index, slot.name, item, slot.attempt))
                # Leave no traces, and the loop to others.
                try:
                    spoiled = copy_context() != before
                except Exception:  # the values in it may not be comparable
                    spoiled = True
                if spoiled:
                    return
                if patient and now() >= pulse.rest and intake.started < last:
                    await pulse.let_others_run()
        except BaseException as exc:
            if self._broke(exc):
                raise
        finally:
            self._left(slot, spoiled)

    def _broke(self, exc: BaseException) -> bool:
        """A worker meets what is no item's failure: a cancellation, Ctrl-C, an exit, a store that fails.
        The call raises it. Returns whether the worker raises it too."""
        if self._ledger is not None and isinstance(exc, StoreError):
            self._ledger.lose(exc)
        else:
            self.stop(exc)
        return self._run.host.cancelled(exc)

    def _left(self, slot: Slot, spoiled: bool) -> None:
        """A worker leaves; where items have changed its context, another takes its place."""
        assert self._crew is not None
        self._slots.discard(slot)
        slot.interrupt = None  # it knows the task, whose context knows the slot
        self._workers -= 1
        if spoiled:
            self._hire(1, self._base)
        if self._tally.cut or self._error is not None:
            self._leave_source()
        self._crew.leave()

    def _source_failed(self, error: Exception) -> None:
        """Nothing more will come. What is at work is finished first where somebody receives it."""
        started = self._intake.started
        add_note(error, f"asyncflow: {self._step.name}: raised by the source of items, at item {started}")
        if self._eager:
            self.stop(error)
        else:
            self._error = self._error or error
            self._intake.end()


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
