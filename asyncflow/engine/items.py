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

import heapq
import math
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from types import CoroutineType
from typing import Any

from asyncflow.clock import SYSTEM
from asyncflow.engine.attempt import attempt, fall_back, finished, refuse_coroutine, retrying, wait_after
from asyncflow.engine.context import Run
from asyncflow.engine.failure import add_note, describe, explain, failed_outcome, own_error, release_frames
from asyncflow.engine.slot import Deadlines, Slot
from asyncflow.engine.source import END, Source
from asyncflow.engine.step import Mode, Step
from asyncflow.engine.tasks import Crew, LoneCrew, Waker
from asyncflow.errors import TooManyFailuresError
from asyncflow.events import NodeFinished, NodeStarted, Statistics
from asyncflow.outcome import Failed, Ok
from asyncflow.threads import ThreadPool
from asyncflow.waiting import current

#: Seconds after which workers whose calls never suspend let others run.
_PATIENCE = 0.005


@dataclass(frozen=True, slots=True)
class OnError:
    """When failures stop the call.

    Attributes:
        keep: Failures become outcomes; otherwise the first one is raised.
        count: Stop once this many have failed.
        share: Stop once this share has failed.
    """

    keep: bool = False
    count: int | None = None
    share: float | None = None

    @classmethod
    def of(cls, value: object) -> OnError:
        """From what users write: "raise", "continue", a count, or a share.

        Raises:
            ValueError, TypeError: If it is none of them.
        """
        if value == "raise":
            return RAISE
        if value == "continue":
            return cls(keep=True)
        if isinstance(value, int) and not isinstance(value, bool):
            if value >= 1:
                return cls(keep=True, count=value)
        elif isinstance(value, float):
            if 0 < value <= 1:
                return cls(keep=True, share=value)
        elif not isinstance(value, str):
            raise TypeError(f"on_error={value!r}: {_ON_ERROR}")
        raise ValueError(f"on_error={value!r}: {_ON_ERROR}")

    def enough(self, failed: int, ended: int, length: int | None) -> bool:
        """Whether that many failures stop the call. Of an unknown length, a share counts from item 100 on."""
        if self.count is not None:
            return failed >= self.count
        if self.share is None:
            return False
        if length is None:
            return ended >= 100 and failed >= self.share * ended
        return failed >= self.share * length


RAISE = OnError()
_ON_ERROR = (
    'it is "raise", "continue", a whole number of failures from 1 (stop once that many have failed), or a '
    "share in (0, 1] as a float"
)


@dataclass(slots=True)
class _Parked:
    """An item between two attempts."""

    index: int
    item: Any
    attempt: int
    total_deadline: float
    due: float


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
        #: When, in real time, workers whose calls never suspend let others run.
        self._rest = math.inf if run.host.blocking or step.atomic else SYSTEM.now() + _PATIENCE
        self._exhausted = False
        self._halted = False
        self._pulling = False
        self._parked: list[tuple[float, int, _Parked]] = []
        self._due: deque[_Parked] = deque()
        self._wake_at = math.inf
        self._cancel_wake: Callable[[], None] | None = None
        self._idle: deque[Waker] = deque()
        #: Whether the next item cannot simply be taken from the source. Kept by `_review`, so that the hot
        #: path makes one test.
        self._detour = source.next is None

    # What it is doing.

    @property
    def parked(self) -> int:
        """Items between two attempts."""
        return len(self._parked) + len(self._due)

    @property
    def in_flight(self) -> int:
        """Items that a worker holds."""
        return self.started - self.succeeded - self.failed - self.skipped - self.parked

    def statistics(self) -> Statistics:
        """A frozen copy of the counts at this moment."""
        return Statistics(
            started=self.started,
            succeeded=self.succeeded,
            failed=self.failed,
            skipped=self.skipped,
            in_flight=self.in_flight,
            waiting=self.waiting,
            parked=self.parked,
            retries=self.retries,
            seconds=self.place.host.now() - self._began,
        )

    # Running it.

    async def run(self) -> None:
        """Run all items, then close the source.

        Raises:
            The first failure, or TooManyFailuresError, as `on_error` says; what the source raised.
        """
        place = self.place
        counts, tell, host = place.counts, place.tell, place.host
        if self.step.exec:
            counts.pools.add(self)
        if tell is not None:
            tell(NodeStarted(place.path, host.now(), self.source.length, self.concurrency))
        try:
            async with LoneCrew() if self._most <= 1 else host.crew(self._halt) as self._crew:
                # Where the number of items is known, as many start at once; else each brings two more.
                self._hire(1 if self.source.length is None else self._most)
        finally:
            if self._cancel_wake is not None:
                self._cancel_wake()
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
        """End everything now; `error` is what the call raises, unless something else came first."""
        if self.error is None:
            self.error = error
        self._halt()
        if self._crew is not None:
            self._crew.cancel()

    def _halt(self) -> None:
        """Begin nothing more: neither new items nor parked ones."""
        self._exhausted = self._halted = True
        self._review()

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
        step, place, results, deliver = self.step, self.place, self._results, self._deliver
        call, take, tell, now = step.call, self.source.next, place.tell, SYSTEM.now
        guarded, awaits = self._guarded, step.mode is Mode.AWAIT
        changed = False
        slot = Slot(place, step, self._deadlines, self._threads, self)
        current.set(slot)
        before = copy_context()
        if self._deadlines is not None:
            self._slots.add(slot)
        try:
            while not changed:
                # Take an item.
                if self._detour or self.started >= self._until:
                    if (parked := await self._next()) is None:
                        return
                    index, item, slot.attempt = parked.index, parked.item, parked.attempt
                    slot.total_deadline = parked.total_deadline
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
                    self.succeeded += 1
                    if results is not None:
                        results[index] = value
                    elif deliver is not None:
                        deliver(Ok(value, index, None, item, slot.attempt))
                    if tell is not None:
                        finished(slot, Ok(value, index, None, item, slot.attempt))
                # Leave no traces, and the loop to others.
                try:
                    changed = copy_context() != before
                except Exception:  # the values in it may not be comparable
                    changed = True
                if now() >= self._rest:
                    # The first of them to come back begins the next turn, which all workers share.
                    turn = self._rest
                    await place.host.let_others_run()
                    if turn == self._rest:
                        self._rest = now() + _PATIENCE
        except BaseException as exc:
            # A cancellation, Ctrl-C, an exit: not an item's failure. The call raises it.
            self.stop(exc)
            if place.host.cancelled(exc):
                raise
        finally:
            self._slots.discard(slot)
            self._workers -= 1
            if changed:
                self._hire(1, self._base)
            self._crew.leave()  # type: ignore[union-attr]  # there is one while there are workers

    def _over(self) -> bool:
        """Whether no worker will find another item. Those that wait for one are told."""
        if not self._exhausted or ((self._parked or self._due) and not self._halted):
            return False
        while self._idle:
            self._idle.popleft().set()
        return True

    async def _next(self) -> _Parked | None:
        """The next item by the longer way: one whose wait is over, or from a source that may wait."""
        while not self._over():
            if self._due:
                parked = self._due.popleft()
                parked.total_deadline += self.place.host.now() - parked.due  # it queued; no timeout ran
                self._review()
                self._wake_one()  # fewer are parked: there may be room for one more from the source
                return parked
            room = self.started < self._until and len(self._parked) < self.concurrency
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
            index = self.started
            self.started = index + 1
            if self._results is not None:
                self._results.append(None)
            return _Parked(index, item, 1, math.inf, math.inf)
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

    def _review(self) -> None:
        self._detour = bool(
            self.source.next is None or self._exhausted or self._due or len(self._parked) >= self.concurrency
        )

    # When something fails.

    async def _attempt_failed(self, slot: Slot, exc: BaseException) -> None:
        """Park the item for its next attempt, or end it: by its fallback, or as a failure."""
        error = own_error(slot, exc)
        if error is None:
            raise exc
        try:
            wait = wait_after(slot, error)
            if wait is not None:
                self.retries += 1
                retrying(slot, error, wait)
                self._park(slot, wait)
                return
            value = await fall_back(slot, error)
        except Exception as final:
            self._item_failed(slot, final)
            return
        self.succeeded += 1
        outcome = Ok(value, slot.index, None, slot.item, slot.attempt)
        if self._results is not None:
            self._results[slot.index] = value
        elif self._deliver is not None:
            self._deliver(outcome)
        finished(slot, outcome)

    def _item_failed(self, slot: Slot, error: Exception) -> None:
        self.failed += 1
        outcome = failed_outcome(error, slot)
        finished(slot, outcome)
        if not self._on_error.keep:
            explain(error, self.step.name, slot.attempt, slot.index, slot.item)
            self.stop(error)
            return
        release_frames(error)
        if self._results is not None:
            self._results[slot.index] = outcome
        elif self._deliver is not None:
            self._deliver(outcome)
        if self._on_error.enough(self.failed, self.failed + self.succeeded, self.source.length):
            self.stop(
                TooManyFailuresError(
                    f"{self.step.name}: {self.failed} items have failed, of "
                    f"{self.failed + self.succeeded} that ended; the last was item {slot.index}: "
                    f"{describe(error)}"
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

    def _park(self, slot: Slot, wait: float) -> None:
        due = self.place.host.now() + wait
        parked = _Parked(slot.index, slot.item, slot.attempt + 1, slot.total_deadline, due)
        if wait <= 0:
            self._due.append(parked)
        else:
            heapq.heappush(self._parked, (due, slot.index, parked))
            self._watch()
        self._review()

    def _watch(self) -> None:
        """Be there when the next parked item comes due."""
        due = self._parked[0][0] if self._parked else math.inf
        if due < self._wake_at:
            if self._cancel_wake is not None:
                self._cancel_wake()
            host = self.place.host
            self._wake_at = due
            self._cancel_wake = host.call_later(due - host.now(), self._look)

    def _look(self) -> None:
        self._wake_at, self._cancel_wake = math.inf, None
        now = self.place.host.now()
        while self._parked and self._parked[0][0] <= now:
            self._due.append(heapq.heappop(self._parked)[2])
            self._wake_one()
        self._review()
        self._watch()


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
