"""Errors that are kept and errors that are raised: whose they are, what they say, what they keep alive."""

from __future__ import annotations

import reprlib
import traceback
from asyncio import CancelledError
from typing import Any

from asyncflow.engine.slot import Slot
from asyncflow.engine.stopping import Halted
from asyncflow.engine.tasks import Expired
from asyncflow.errors import BudgetSpentError, ItemCancelledError, ItemCrashedError, RunStoppedError
from asyncflow.outcome import Failed, Skipped


def left_undone(slot: Slot, exc: BaseException) -> bool:
    """Whether the item was not failed by `exc` but left, because the run is asked to stop.

    A run of a flow has nodes to go, an `exec` waited for its turn, or its own amap was given the same `Stop`.
    """
    stop = slot.run.stop
    return isinstance(exc, Halted) or (isinstance(exc, RunStoppedError) and stop is not None and stop.asked)


def own_error(slot: Slot, exc: BaseException) -> Exception | None:
    """The item's own error behind `exc`, or None: a cancellation from outside, Ctrl-C, an exit, and what the
    run's journal refused, after which nothing may go on."""
    if isinstance(exc, Exception):
        return None if slot.run.counts.is_refusal(exc) else exc
    if isinstance(exc, Expired):
        return slot.timeout_error()
    if isinstance(exc, CancelledError) and not slot.run.host.cancelled(exc):
        return cancelled_error(slot.step.name, slot.index, exc)
    return None


def cancelled_error(name: str, index: int, cause: CancelledError) -> ItemCancelledError:
    """For an item that has cancelled itself, or awaited something that was cancelled."""
    error = ItemCancelledError(
        f"{name}, item {index}: exec raised CancelledError though nobody cancelled it; something that it "
        "awaited was cancelled"
    )
    error.__cause__ = cause
    return error


def failed_outcome(error: BaseException, slot: Slot) -> Failed:
    """A `Failed` for the slot's item, with where it happened as text."""
    if isinstance(error.__context__, Expired):  # how the engine ends a call is nobody's reason
        error.__context__ = None
    lines = [
        f'File "{frame.f_code.co_filename}", line {line}, in {frame.f_code.co_name}'
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not frame.f_globals.get("__name__", "").startswith("asyncflow.")
    ]
    return Failed(error, slot.index, slot.name, slot.item, slot.attempt, "\n".join(lines[-20:]))


def crashed_outcome(slot: Slot) -> Failed:
    """A `Failed` for the slot's item, which is not run: it has ended the process before."""
    error = ItemCrashedError(
        f"{slot.step.name}, item {slot.index} ({describe(slot.item)}): the process ended four times or more "
        "while this item was at work, the last time with nothing else in flight, so it is not run. Find out "
        "what it does to the process (memory, a crash in a library, os._exit); `asyncflow items retry` has "
        "it run again"
    )
    return Failed(error, slot.index, slot.name, slot.item, 0)


def skipped_outcome(error: BudgetSpentError, slot: Slot) -> Skipped:
    """A `Skipped` for the slot's item: it was not run, for a reason that is not its own."""
    return Skipped(error.reason, slot.index, slot.name, slot.item, slot.attempt - 1)


def release_frames(error: BaseException) -> None:
    """Drop the tracebacks of an error and of all that it came from: they would keep every local alive."""
    todo, seen = [error], set()
    while todo:
        exc = todo.pop()
        if id(exc) in seen:
            continue
        seen.add(id(exc))
        exc.__traceback__ = None
        todo += [other for other in (exc.__cause__, exc.__context__) if other is not None]
        todo += getattr(exc, "exceptions", ())


def explain(
    error: BaseException, name: str, attempts: int, index: int | None = None, item: Any = None
) -> None:
    """Note on an exception that is about to be raised which node, item and attempts it belongs to."""
    what = f"asyncflow: {name}"
    if index is not None:
        what += f", item {index} ({describe(item)})"
    add_note(error, f"{what}, attempt {attempts}")


def add_note(error: BaseException, note: str) -> None:
    if note not in getattr(error, "__notes__", ()):
        try:
            error.add_note(note)
        except Exception:  # an exception class may forbid attributes; the error itself matters more
            return


def describe(item: Any) -> str:
    """A short text for any object, whatever its `__repr__` does."""
    try:
        return _repr.repr(item)
    except Exception:
        return f"<{type(item).__name__}>"


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 60
