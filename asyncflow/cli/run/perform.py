"""From a command to an exit code: find the flow and its run, run it, say what it came to."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AbstractContextManager, ExitStack, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncflow.api.flows import RunResult, run
from asyncflow.cli.run.report import figures_of, lines_of, say, say_found
from asyncflow.cli.run.shared import shared_of
from asyncflow.cli.run.target import described, flow_at, where
from asyncflow.cli.store.again import command_again
from asyncflow.cli.store.holding import holding
from asyncflow.cli.store.named import Name
from asyncflow.cli.store.reading import reader_of, without_password
from asyncflow.cli.store.shown import one_line, print_json
from asyncflow.cli.usage import UsageError
from asyncflow.durability import as_store, resolve
from asyncflow.durability.keys import canonical
from asyncflow.durability.store import RunRow, Store
from asyncflow.engine.journal import Changed
from asyncflow.engine.signals import EXIT_CODES, stop_on_signals
from asyncflow.engine.stopping import Stop
from asyncflow.errors import (
    MissingStartError,
    NotSupportedError,
    ResumeMismatchError,
    RunStoppedError,
    StoreError,
    StoreFormatError,
    StoreLockedError,
)
from asyncflow.graph.base import BaseNode
from asyncflow.observe import Progress


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of `asyncflow run`, as given."""

    target: str
    shared: str | None
    store: str
    run_id: str | None
    new: bool
    retry_failed: bool
    keep_failed: bool
    changed: Changed
    concurrency: int | None
    grace: float
    json: bool


@dataclass(frozen=True, slots=True)
class _Found:
    """What is to be run, and as which run; `failed`: how many items of it have failed."""

    flow: BaseNode
    path: Path
    shared: dict[str, Any]
    run_id: str
    failed: int | None


def perform(asked: Asked) -> int:
    """Run it; returns the exit code: 0 ok, 1 something failed, 2 usage, 3 refused, 130/143 signals."""
    with ExitStack() as stack:
        try:
            with _stdout_kept(asked):
                found = _found(asked)
            if asked.retry_failed and not found.failed:
                say(f"No item of run {found.run_id} has failed: there is nothing to retry.")
                return 0
            stack.enter_context(holding(as_store(asked.store)))
        except (StoreLockedError, StoreFormatError) as exc:
            say(f"asyncflow run: {exc}")
            return 3
        except (UsageError, OSError, NotSupportedError, StoreError) as exc:
            say(f"asyncflow run: {exc}")
            return 2
        return _performed(asked, found)


def _performed(asked: Asked, found: _Found) -> int:
    stop = Stop(grace=asked.grace)
    try:
        result = _run(asked, found, stop)
    except ResumeMismatchError as exc:
        return _refused(found, exc)
    except RunStoppedError as exc:
        return _stopped(asked, found, stop, exc)
    except Exception as exc:
        return _failed(asked, found, exc)
    return _ended(asked, found, result)


def _found(asked: Asked) -> _Found:
    """The flow, what it is given, and its run."""
    shared = shared_of(asked.shared)
    flow, path, name = flow_at(asked.target)
    store = as_store(asked.store)
    # Another input is other work; --run-id goes on with a run whatever it is given.
    own = Name("run", f"{path.stem} {name}", f"{path.resolve()}:{name} {canonical(shared)}")
    run_id, failed = asked.run_id or own.new_id(), None
    before = None if asked.new else _earlier(store, own, asked.run_id)
    if before is not None:
        run_id, failed = before
    elif asked.retry_failed:
        raise UsageError(
            f"--retry-failed: {without_password(asked.store)} has no run of this yet; nothing has failed"
        )
    elif asked.run_id is not None and asked.run_id.startswith("@"):
        raise UsageError(f"--run-id {asked.run_id}: there is no store at {without_password(asked.store)}")
    return _Found(flow, path, shared, run_id, failed)


def _earlier(store: Store, own: Name, run_id: str | None) -> tuple[str, int] | None:
    """The run to go on with, and how many of its items have failed; None: there is none."""
    run: RunRow | None
    with reader_of(store) as reader:
        if reader is None:
            return None
        if run_id is None:
            run = own.latest(reader)
        else:
            try:
                run = reader.run(resolve(run_id, [each.id for each in reader.runs()]))
            except LookupError as exc:
                if run_id.startswith("@") or "runs begin with" in str(exc):
                    raise UsageError(f"--run-id: {exc.args[0]}") from None
                run = None  # a name for a new run
        return (
            None
            if run is None
            else (run.id, sum(each.failed + each.again for each in reader.counts(run.number)))
        )


def _run(asked: Asked, found: _Found, stop: Stop) -> RunResult:
    with Progress() as progress, stop_on_signals(stop=stop), _stdout_kept(asked):
        return asyncio.run(
            run(
                found.flow,
                found.shared,
                store=asked.store,
                run_id=found.run_id,
                concurrency=asked.concurrency,
                observers=[say_found, progress],
                changed=asked.changed,
                retry_failed=not asked.keep_failed,
                stop=stop,
            )
        )


def _stdout_kept(asked: Asked) -> AbstractContextManager[Any]:
    """With --json standard output is for the JSON: what the program prints goes to standard error."""
    return redirect_stdout(sys.stderr) if asked.json else nullcontext()


def _ended(asked: Asked, found: _Found, result: RunResult) -> int:
    figures = figures_of(
        run_id=found.run_id, store=without_password(asked.store), status="finished", action=result.action,
        shared=result.shared, statistics=result.statistics, spent=result.spent, error=None,
    )  # fmt: skip
    if asked.json:
        print_json(figures)
    else:
        print("\n".join(lines_of(figures)))
    if not result.statistics.failed:
        return 0
    say(f"Some items have failed (asyncflow items list {found.run_id} --failed). This runs them again:")
    say(f"  {command_again()}")
    return 1


def _failed(asked: Asked, found: _Found, error: Exception) -> int:
    usage = isinstance(error, MissingStartError)
    say(f"asyncflow run: {described(error)}{where(error, found.path)}")
    for note in getattr(error, "__notes__", ()):
        say(f"  {note}")
    _print_unfinished(asked, found, "failed", {"kind": type(error).__name__, "message": str(error)})
    if not usage:
        say(f"What is done is kept. This goes on:\n  {command_again()}")
    return 2 if usage else 1


def _stopped(asked: Asked, found: _Found, stop: Stop, error: RunStoppedError) -> int:
    say(f"Stopped by {stop.reason}. What is done is kept. This goes on:\n  {command_again()}")
    _print_unfinished(asked, found, "stopped", {"kind": type(error).__name__, "message": str(error)})
    return EXIT_CODES.get(stop.reason or "", 1)


def _refused(found: _Found, error: ResumeMismatchError) -> int:
    say(f"asyncflow run: run {found.run_id} was recorded with something else:")
    for one in error.differences:
        say(f"  {one_line(one, 400)}")
    say(
        "Nothing was run. --changed keep keeps all results, --changed drop runs the nodes that have changed "
        "again, --new begins another run."
    )
    return 3


def _print_unfinished(asked: Asked, found: _Found, status: str, error: dict[str, Any]) -> None:
    if not asked.json:
        return
    figures = figures_of(
        run_id=found.run_id, store=without_password(asked.store), status=status, action=None,
        shared=found.shared, statistics=None, spent=None, error=error,
    )  # fmt: skip
    print_json(figures)
