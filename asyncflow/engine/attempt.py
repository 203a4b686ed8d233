"""One attempt at one item, with its guards; and one item to its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from types import CoroutineType
from typing import Any, NoReturn

from asyncflow.engine.alone import Alone
from asyncflow.engine.context import Run
from asyncflow.engine.failure import (
    add_note,
    crashed_error,
    explain,
    failed_outcome,
    left_undone,
    own_error,
    release_frames,
    skipped_outcome,
)
from asyncflow.engine.journal import Place, Verdict
from asyncflow.engine.slot import Deadlines, OnThread, Slot
from asyncflow.engine.step import Mode, Step
from asyncflow.engine.stopping import Halted
from asyncflow.engine.tasks import sleep
from asyncflow.errors import BudgetSpentError, CoroutineReturnedError, NotSupportedError, StoreError
from asyncflow.events import ItemFinished, ItemRetrying, ItemStarted
from asyncflow.outcome import Failed, Ok, Outcome, Skipped
from asyncflow.threads import Job, ThreadPool
from asyncflow.waiting import current


async def attempt(slot: Slot, item: Any) -> Any:
    """One attempt at the slot's item, with whatever guards its step asks for."""
    step, run = slot.step, slot.run
    cap = run.cap if step.exec else None
    if cap is not None:
        if not cap.acquire_nowait():
            queued = run.host.now()
            await cap.acquire()
            slot.total_deadline += run.host.now() - queued  # no timeout runs while an item queues
            if _too_late(slot):
                cap.release()
                raise Halted
        slot.holding = True
    try:
        if run.tell is not None:
            run.tell(ItemStarted(run.path, run.host.now(), slot.index, slot.attempt, run.branches))
        slot.expired = None
        call = partial(in_thread, slot, step.call, step.timed) if step.mode is Mode.THREAD else step.call
        if step.limits is not None:
            call = partial(in_lane, slot, call)
        if step.timed:
            if slot.interrupt is None:
                slot.interrupt = run.host.interrupt()
            if step.mode is not Mode.THREAD:
                slot.start_clock()
            return await slot.interrupt.run(call, item)
        if step.mode is not Mode.INLINE:
            return await call(item)
        value = call(item)
        if type(value) is CoroutineType:
            refuse_coroutine(value, step.name)
        return value
    finally:
        slot.end()


def _too_late(slot: Slot) -> bool:
    """Whether the attempt may no longer begin, after it had to queue: meanwhile its run was asked to stop, or
    its pool met a failure that ends it."""
    stop = slot.run.stop
    return (stop is not None and stop.asked) or (slot.crowd is not None and slot.crowd.halted)


async def in_lane(slot: Slot, call: Callable[[Any], Awaitable[Any]], item: Any) -> Any:
    """Make a call when the lane of its step's limits lets it; a refusal that it raises pauses the lane."""
    limits = slot.step.limits
    assert limits is not None
    if slot.run.host.blocking:
        raise NotSupportedError(
            f"{slot.step.name}: limits= needs an event loop to wait in; run the flow with run_sync or run"
        )
    async with limits.lane().attempt(retry=slot.attempt > 1):
        if _too_late(slot):
            raise Halted
        return await call(item)


async def in_thread(
    slot: Slot, function: Callable[[Any], Any], timed: bool, item: Any, *, threads: ThreadPool | None = None
) -> Any:
    """Run `function(item)` on one of the pool's threads, or of `threads`; `timed`: under the slot's clock.

    Cancelling takes a job back that has not started, and waits for one that has; a timeout gives it up,
    and it keeps its thread, its place in the pool and its slot until it ends.
    """
    run, threads = slot.run, threads or slot.threads
    assert threads is not None
    waker, view = run.host.waker(), OnThread(slot)
    held = home_already = False

    def finished(job: Job) -> None:
        try:
            run.host.from_thread(home)
        except RuntimeError:
            return  # the loop has ended; nobody waits

    def home() -> None:
        nonlocal home_already
        home_already = True
        if view.live:
            waker.set()
        elif run.cap is not None and held:
            run.cap.release()

    started = view.started if timed else None
    job = threads.submit(view.call, function, item, done=finished, started=started)
    if timed and not job.queued:
        slot.start_clock()
    try:
        await waker.wait()
    except BaseException:
        if slot.expired is not None:
            view.live = False
            if not home_already:  # the job keeps its slot until it ends
                held, slot.holding = slot.holding, False
        elif not job.withdraw():
            await run.host.outlast(waker)
        raise
    view.live = False
    if job.error is not None:
        raise job.error
    if slot.step.adapt is not None:
        return await slot.step.adapt(job.value)
    if type(job.value) is CoroutineType:
        refuse_coroutine(job.value, slot.step.name)
    return job.value


async def run_one(step: Step, item: Any, run: Run, *, keep: bool = False) -> Any:
    """One item to its value, in the calling task. Waits between attempts where it stands.

    Returns:
        The value; where failures are kept, a `Failed` in its place.

    Raises:
        What the last attempt raised, or the fallback.
    """
    counts, place = run.counts, run.place(step.key, step.call, step.result_type)
    counts.started += 1
    try:
        if place is None:
            outcome = await _outcome_of(_slot_for(step, item, run), keep)
        else:
            outcome = await _remembered(place, step, item, run, keep)
    except BaseException:
        counts.cancelled += 1
        raise
    if run.tell is not None:
        run.tell(ItemFinished(run.path, run.host.now(), outcome, run.branches))
    if isinstance(outcome, Ok):
        counts.succeeded += 1
        return outcome.value
    if isinstance(outcome, Skipped):
        counts.skipped += 1
        return outcome
    counts.failed += 1
    if keep:
        release_frames(outcome.error)
        return outcome
    explain(outcome.error, step.name, outcome.attempts)
    raise outcome.error


async def _remembered(place: Place, step: Step, item: Any, run: Run, keep: bool) -> Outcome[Any]:
    """The outcome of one item that an earlier process committed, or one that is committed now."""
    key = place.key_of_single(item)
    try:
        kept = await place.recall(key) if place.has_records else None
    except StoreError as exc:
        run.counts.refused(exc)
        raise
    if kept is not None:
        run.counts.recalled += not isinstance(kept, Skipped)
        return replace(kept, item=item)
    verdict = place.verdict(key) if run.alone is not None else "run"
    outcome: Outcome[Any]
    slot = _slot_for(step, item, run)
    if verdict == "quarantine":
        outcome = Failed(crashed_error(step.name, 0, item), 0, None, item, 0)
    else:
        try:
            if run.alone is not None:
                await _own_turn(run, run.alone, key, verdict)
            place.begin(key)
            outcome = await _outcome_of(slot, keep)
        except BaseException as exc:
            if isinstance(exc, StoreError):  # of `begin`: what the item itself raises is an outcome
                run.counts.refused(exc)
            place.withdraw(key)
            _leave(run, key)
            raise
    if isinstance(outcome, Skipped):
        place.withdraw(key)
        _leave(run, key)
        return outcome
    waker = run.host.waker()
    refusals: list[BaseException | None] = []

    def committed(error: BaseException | None) -> None:
        refusals.append(error)
        waker.set()

    try:
        place.commit(key, outcome, committed, slot.spent)
    except Exception as exc:  # the value cannot be stored: that is what became of the item
        outcome = Failed(exc, 0, None, item, outcome.attempts)
        try:
            place.commit(key, outcome, committed, slot.spent)
        except Exception as refusal:
            run.counts.refused(refusal)
            raise
    cancelled = await run.host.outlast(waker)
    _leave(run, key)
    if (refused := refusals[0]) is not None:
        run.counts.refused(refused)
        raise refused
    if cancelled is not None:
        raise cancelled
    return outcome


def _leave(run: Run, key: bytes) -> None:
    if run.alone is not None:
        run.alone.leave(key)


async def _own_turn(run: Run, gate: Alone, key: bytes, verdict: Verdict) -> None:
    """Until this item may begin, in a run with suspects. Raises Halted if the run is asked to stop."""
    if run.host.blocking:
        return  # made in place: nothing else goes on, and nobody could be waited for
    if verdict == "alone":
        gate.line_up(key)
    while not gate.lets(key):
        waker = run.host.waker()
        shut = gate.listen(waker.set)
        deaf = run.stop.listen(run.host, waker.set) if run.stop is not None else None
        try:
            await waker.wait()
        finally:
            shut()
            if deaf is not None:
                deaf()
        if run.stop is not None and run.stop.asked:
            raise Halted


def _slot_for(step: Step, item: Any, run: Run) -> Slot:
    """A place of work for this one item."""
    slots: set[Slot] = set()
    deadlines = Deadlines(run.host, slots) if step.timed else None
    slot = Slot(run, step, deadlines, ThreadPool(1) if step.mode is Mode.THREAD else None)
    slot.item = item
    slots.add(slot)
    return slot


async def _outcome_of(slot: Slot, keep: bool) -> Outcome[Any]:
    """Attempt after attempt, until the item has its outcome. Raises only what is not the item's own."""
    item, run = slot.item, slot.run
    token = current.set(slot)
    try:
        while True:
            try:
                return Ok(await attempt(slot, item), 0, None, item, slot.attempt)
            except BaseException as exc:
                if left_undone(slot, exc):
                    raise Halted from None
                error = own_error(slot, exc)
                if error is None:
                    raise
                wait = wait_after(slot, error)
            if wait is None:
                return Ok(await fall_back(slot, error), 0, None, item, slot.attempt)
            retrying(slot, error, wait)
            run.counts.retries += 1
            if wait > 0 and run.stop is not None:
                await _wait_unless_stopped(run, wait)
            elif wait > 0:
                await sleep(run.host, wait)
            elif run.stop is not None and run.stop.asked:
                raise Halted
            slot.attempt += 1
    except BudgetSpentError as exc:
        return skipped_outcome(exc, slot) if keep else failed_outcome(exc, slot)
    except Exception as exc:
        return failed_outcome(exc, slot)
    finally:
        current.reset(token)
        if slot.deadlines is not None:
            slot.deadlines.close()


async def _wait_unless_stopped(run: Run, wait: float) -> None:
    """Wait between two attempts. Raises Halted as soon as the run is asked to stop."""
    assert run.stop is not None
    waker = run.host.waker()
    deaf = run.stop.listen(run.host, waker.set)
    cancel = run.host.call_later(wait, waker.set)
    try:
        await waker.wait()
    finally:
        deaf()
        cancel()
    if run.stop.asked:
        raise Halted


def wait_after(slot: Slot, error: Exception) -> float | None:
    """Seconds until the next attempt, or None where this was the last."""
    if slot.expired == "total" or isinstance(error, BudgetSpentError):
        return None
    wait = slot.step.retry.wait_after(slot.attempt, error)
    if wait is not None and slot.run.host.now() + wait >= slot.total_deadline:
        add_note(error, "asyncflow: total_timeout leaves no time for another attempt")
        return None
    return wait


async def fall_back(slot: Slot, error: Exception) -> Any:
    """The fallback's value after the last attempt; raises the error where there is no fallback."""
    step = slot.step
    fallback = step.fallback
    if fallback is None:
        raise error
    slot.expired = None
    try:
        if step.fallback_mode is Mode.THREAD:
            # Not on the pool's threads: jobs that were given up may hold all of them.
            call = partial(in_thread, slot, lambda item: fallback(item, error), False)
            return await call(slot.item, threads=ThreadPool(1))
        value = fallback(slot.item, error)
        return await value if step.fallback_mode is Mode.AWAIT else value
    except BaseException as exc:
        own = own_error(slot, exc)
        if own is None or own is exc:
            raise
        raise own from exc


def refuse_coroutine(value: Any, name: str) -> NoReturn:
    """A plain function returned a coroutine, which nobody would await."""
    value.close()
    raise CoroutineReturnedError(
        f"{name} is synchronous but returned a coroutine ({value.__qualname__}): write it as "
        "`async def exec_async` on an async class (AsyncNode, AsyncBatchNode, AsyncParallelBatchNode), or "
        "return the value itself"
    )


def retrying(slot: Slot, error: Exception, wait: float) -> None:
    run = slot.run
    if run.tell is not None:
        now = run.host.now()
        run.tell(ItemRetrying(run.path, now, slot.index, slot.attempt, wait, error, run.branches))
