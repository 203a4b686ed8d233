"""One item to its end in the calling task, without a pool: what a plain node needs.

As in a pool, an earlier process may have its outcome, suspects wait until no other item runs, and an outcome
is seen once it is committed. Between attempts it waits where it stands.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from asyncflow.engine.alone import Alone
from asyncflow.engine.attempt import attempt, fall_back, retrying, wait_after
from asyncflow.engine.context import Run
from asyncflow.engine.failure import (
    crashed_outcome,
    explain,
    failed_outcome,
    left_undone,
    own_error,
    release_frames,
    skipped_outcome,
)
from asyncflow.engine.journal import Place, Verdict
from asyncflow.engine.slot import Deadlines, Slot
from asyncflow.engine.step import Mode, Step
from asyncflow.engine.stopping import Halted
from asyncflow.engine.tasks import sleep
from asyncflow.errors import BudgetSpentError, StoreError
from asyncflow.events import ItemFinished
from asyncflow.outcome import Failed, Ok, Outcome, Skipped
from asyncflow.threads import ThreadPool
from asyncflow.waiting import current


async def run_one(step: Step, item: Any, run: Run, *, keep: bool = False) -> Any:
    """One item to its value, in the calling task. Waits between attempts where it stands.

    Returns:
        The value; where failures are kept, a `Failed` in its place.

    Raises:
        What the last attempt raised, or the fallback.
    """
    counts, place = run.counts, run.place(step.key, step.call, step.result_type)
    counts.started += 1
    slot = _slot_for(step, item, run)
    try:
        outcome = await (_outcome_of(slot, keep) if place is None else _remembered(place, slot, keep))
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
            await _wait_unless_stopped(run, wait)
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
    if run.stop is None:
        if wait > 0:
            await sleep(run.host, wait)
        return
    if wait > 0:
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


# With a journal.


async def _remembered(place: Place, slot: Slot, keep: bool) -> Outcome[Any]:
    """The outcome of one item that an earlier process committed, or one that is committed now."""
    run = slot.run
    slot.key = place.key_of_single(slot.item)
    try:
        kept = await place.recall(slot.key) if place.has_records else None
    except StoreError as exc:
        run.counts.refused(exc)
        raise
    if kept is not None:
        run.counts.recalled += not isinstance(kept, Skipped)
        return replace(kept, item=slot.item)
    verdict = place.verdict(slot.key) if run.alone is not None else "run"
    if verdict == "quarantine":
        return await _committed(place, slot, crashed_outcome(slot))
    slot.place = slot.flight = place
    try:
        if run.alone is not None:
            await _own_turn(run, run.alone, slot.key, verdict)
        outcome = await _outcome_of(slot, keep)
    except BaseException:
        _withdraw(place, slot)
        raise
    if isinstance(outcome, Skipped):
        _withdraw(place, slot)
        return outcome
    return await _committed(place, slot, outcome)


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


async def _committed(place: Place, slot: Slot, outcome: Ok[Any] | Failed) -> Ok[Any] | Failed:
    """The outcome, once it is durable; a failure where the value cannot be stored."""
    run, waker = slot.run, slot.run.host.waker()
    refusals: list[BaseException | None] = []

    def committed(error: BaseException | None) -> None:
        refusals.append(error)
        waker.set()

    try:
        place.commit(slot.key, outcome, committed, slot.spent)
    except Exception as exc:  # the value cannot be stored: that is what became of the item
        outcome = Failed(exc, 0, None, slot.item, outcome.attempts)
        try:
            place.commit(slot.key, outcome, committed, slot.spent)
        except Exception as refusal:
            run.counts.refused(refusal)
            raise
    cancelled = await run.host.outlast(waker)
    _leave(slot)
    if (refused := refusals[0]) is not None:
        run.counts.refused(refused)
        raise refused
    if cancelled is not None:
        raise cancelled
    return outcome


def _withdraw(place: Place, slot: Slot) -> None:
    place.withdraw(slot.key)
    _leave(slot)


def _leave(slot: Slot) -> None:
    if slot.run.alone is not None:
        slot.run.alone.leave(slot.key)
