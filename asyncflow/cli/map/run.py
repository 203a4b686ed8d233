"""From a job to an exit code: check everything, ask what is not yet known, write, and say what it came to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from asyncflow.api.items import stream
from asyncflow.cli.map.asking import Asking
from asyncflow.cli.map.checks import Plan, checked
from asyncflow.cli.map.client import client_of, concurrency_of, price_of
from asyncflow.cli.map.estimate import run_estimate
from asyncflow.cli.map.job import Job
from asyncflow.cli.map.kept import Kept, Standing, facts_of
from asyncflow.cli.map.output import Output, Results, check_owner
from asyncflow.cli.map.result import Answered
from asyncflow.cli.map.resume import said_first
from asyncflow.cli.map.rows import Row, RowsError
from asyncflow.cli.map.shown import Shown, lanes_unlogged
from asyncflow.cli.map.silence import Silence
from asyncflow.cli.map.stop import stopped_lane
from asyncflow.cli.map.summary import Counts, figures_of
from asyncflow.cli.map.told import announce, farewell, report, say, say_changed, say_wrong
from asyncflow.cli.store.holding import holding
from asyncflow.cli.usage import UsageError
from asyncflow.engine.signals import EXIT_CODES, stop_on_signals
from asyncflow.engine.stopping import Stop
from asyncflow.errors import (
    NotSupportedError,
    ResumeMismatchError,
    RunStoppedError,
    StoreError,
    StoreFormatError,
    StoreLockedError,
)
from asyncflow.http import Timeouts
from asyncflow.llm.statistics import LLMStatistics
from asyncflow.observe import Progress
from asyncflow.outcome import Ok, Skipped


@dataclass(slots=True)
class _Session:
    """What one command has done so far.

    Attributes:
        plan, kept, standing: What is to be done, and what was there.
        run_id: The run.
        stop: Ends it early.
        answered: Rows with an answer, kept ones included.
        left_out: By place in the input, whether a row was not asked because the budget was spent.
        trouble: What went wrong with the files, if anything.
        used, seconds: Of the client, and of the asking.
    """

    plan: Plan
    kept: Kept
    standing: Standing
    run_id: str
    stop: Stop
    left_out: bytearray
    answered: int = 0
    trouble: Exception | None = None
    provider: str = "simulated"
    used: LLMStatistics = field(default_factory=LLMStatistics)
    seconds: float = 0.0


def run_map(job: Job) -> int:
    """Do the job; returns the exit code: 0 ok, 1 some failed, 2 usage, 3 refused, 130/143 signals."""
    try:
        plan = checked(job)
        if not plan.template.columns:
            say("asyncflow map: --prompt names no {column}, so every row asks the same", "yellow")
        return asyncio.run(run_estimate(plan)) if job.estimate else _map(plan)
    except (StoreLockedError, StoreFormatError) as exc:
        say_wrong(f"{exc}. --store names another place for this run")
        return 3
    except (UsageError, OSError, StoreError, NotSupportedError) as exc:
        say_wrong(exc)
        return 2


def _map(plan: Plan) -> int:
    job = plan.job
    kept = Kept(job)
    known = kept.run is not None
    check_owner(job, known=known, where=kept.where)
    facts = facts_of(job, plan.key, plan.schema)
    dropped = _compared(job, kept, facts)
    if dropped is None:
        return 3
    output = Output(job, plan.rows, plan.found, plan.schema)
    if job.key is not None:
        for _ in plan.keyed():  # a key that comes twice is told before the first call
            pass
    with holding(kept.store):
        standing = kept.standing(plan.keyed())
        if kept.run is not None:
            rest = said_first(standing, plan.found.rows, only_failed=job.retry_failed, dropped=dropped)
            say(f"Going on with run {kept.run.id}: {rest}")
        if job.retry_failed and not standing.failed:
            say(f"No row of {job.output} has failed: there is nothing to retry.")
            return 0
        run_id = kept.run.id if kept.run is not None else kept.name.new_id()
        if dropped:
            standing = Standing()
        session = _Session(plan, kept, standing, run_id, Stop(grace=job.grace), bytearray(plan.found.rows))
        asyncio.run(_ask(session, facts))
        spare = job.output is not None and job.output.exists() and bool(job.new or job.overwrite or dropped)
        return _write(session, output, spare=spare)


def _compared(job: Job, kept: Kept, facts: dict[str, str]) -> list[str] | None:
    """How what is asked has changed where answers are dropped for it; None: it is refused, and said."""
    if job.new:
        kept.run = None
    if kept.run is None:
        if job.retry_failed:
            raise UsageError(
                f"--retry-failed: {kept.where} has no run of {job.output}; nothing has failed yet"
            )
        return []
    try:
        found = kept.check(facts, job.changed)
    except ResumeMismatchError as exc:
        say_changed(job, kept.run.id, exc)
        return None
    return found if job.changed == "drop" else []


async def _ask(session: _Session, facts: dict[str, str]) -> None:
    """Ask all rows that are not known yet; what comes is recorded, row by row."""
    job, found = session.plan.job, session.plan.found
    left = None if job.max_cost is None else max(0.0, job.max_cost - session.standing.cost)
    async with AsyncExitStack() as stack:
        client = await client_of(replace(job, max_cost=left), stack)
        only = set(session.standing.failed_rows) if job.retry_failed else None
        asked = len(only) if only is not None else found.rows - session.standing.done
        session.provider = "simulated" if job.simulate else client.base_url
        if asked:
            announce(job, client, asked)
        elif not found.rows:
            say(f"{job.input} has no rows: there is nothing to ask.")
        asking = Asking(job, client, session.plan.template, session.plan.schema, session.stop)
        began = time.perf_counter()
        try:
            await _ask_all(session, asking, facts, only)
        except RunStoppedError:
            pass  # the reason is in `stop`
        except (RowsError, OSError, StoreError) as exc:
            session.trouble = exc
        session.seconds = time.perf_counter() - began
        session.used = client.statistics()


async def _ask_all(session: _Session, asking: Asking, facts: dict[str, str], only: set[int] | None) -> None:
    job = session.plan.job
    rows = session.plan.keyed()
    total = session.plan.found.rows if only is None else len(only)
    timeouts = Timeouts.of(job.timeout)
    silence = Silence(say, timeout=min(timeouts.read, timeouts.total))
    with (
        Progress() as progress,
        stop_on_signals(stop=session.stop),
        stopped_lane(session.stop),
        asking.turns.heard(),
        lanes_unlogged(),
    ):
        outcomes = stream(
            _step(asking, parsed=session.plan.schema is not None),
            rows if only is None else _chosen(rows, only),
            concurrency=concurrency_of(job),
            on_error="continue",
            observers=[Shown(progress, total, say), silence],
            store=session.kept.store,
            run_id=session.run_id,
            key=lambda row: row.key,
            version=facts,
            changed=job.changed,
            stop=session.stop,
        )
        async with outcomes, silence.watched():
            async for outcome in outcomes:
                if isinstance(outcome, Ok):
                    session.answered += 1
                elif isinstance(outcome, Skipped) and outcome.reason == "budget":
                    session.left_out[outcome.item.number] = 1


def _chosen(rows: Iterator[Row], only: set[int]) -> Iterator[Row]:
    return (row for row in rows if row.number in only)


def _step(asking: Asking, *, parsed: bool) -> Callable[[Row], Any]:
    async def map(row: Row) -> Answered:  # the name that the run, its records and the progress have
        completion, attempts = await asking.ask(row)
        return Answered.of(completion, attempts, parsed=parsed)

    return map


def _write(session: _Session, output: Output, *, spare: bool) -> int:
    """Make the output of what the store has, and say what all came to.

    Args:
        spare: What is there is of another run: only a whole output may take its place.
    """
    plan, job = session.plan, session.plan.job
    whole = session.trouble is None and not session.stop.asked
    written = whole or (bool(session.answered) and not spare)
    counts = Counts()

    def results() -> Results:
        return session.kept.results(session.run_id, plan.keyed(), price_of(job))

    try:
        counts = (output.write if written else output.count)(results, session.left_out)
        counts.cost = session.kept.spent(session.run_id)
    except (UsageError, OSError, StoreError, ValueError, TypeError) as exc:  # the latter two are pyarrow's
        session.trouble, written = session.trouble or exc, False
    if session.stop.reason in EXIT_CODES and counts.ended == plan.found.rows:
        session.stop.reason = None  # it came too late: there was nothing left to stop
    why = session.stop.reason or ("error" if session.trouble is not None else None)
    path = str(job.output) if written else None
    figures = figures_of(
        job, session.provider, counts, session.used, plan.found.rows, session.seconds, why, path,
        run=session.run_id, store=session.kept.where, kept=session.standing.done,
    )  # fmt: skip
    report(figures, job)
    for column in output.as_text:
        say(f"{job.output}: {column} is text, for a number in it has more digits than a table's numbers hold")
    if session.trouble is not None:
        say_wrong(session.trouble)
    if why is not None:
        say(farewell(why, session.stop.error, job, counts, plan.found.rows, written), "yellow")
    if why in EXIT_CODES:
        return EXIT_CODES[why]
    if why == "denied":
        return 3
    return 0 if why is None and counts.ok == plan.found.rows else 1
