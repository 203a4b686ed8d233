"""From a job to an exit code: check everything, ask, write, and say what it came to."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from asyncflow.api import stream
from asyncflow.cli.map import estimate
from asyncflow.cli.map.asking import Asking
from asyncflow.cli.map.client import check_client, client_of, concurrency_of, price_of
from asyncflow.cli.map.job import Job
from asyncflow.cli.map.output import Output, check_names, check_output
from asyncflow.cli.map.result import result_of
from asyncflow.cli.map.rows import Rows, RowsError, rows_of
from asyncflow.cli.map.scan import Scan, again, scan
from asyncflow.cli.map.schema_file import schema_in
from asyncflow.cli.map.shown import Shown
from asyncflow.cli.map.stop import SIGNALS, STOPPED, Stop, signals, stopped_lane
from asyncflow.cli.map.summary import Counts, counted, figures_of, lines_of
from asyncflow.cli.map.template import Template
from asyncflow.cli.usage import UsageError
from asyncflow.errors import AccessDeniedError
from asyncflow.llm import LLMClient
from asyncflow.observe import Progress


@dataclass(frozen=True, slots=True)
class _Plan:
    """A job that has been checked."""

    job: Job
    template: Template
    schema: Mapping[str, Any] | None
    rows: Rows
    found: Scan


def run_map(job: Job) -> int:
    """Do the job; returns the exit code: 0 ok, 1 some failed, 2 usage, 3 refused, 130/143 signals."""
    errors = Console(stderr=True)
    plan = None
    try:
        plan = _checked(job)
        if not plan.template.columns:
            _say(errors, "asyncflow map: --prompt names no {column}, so every row asks the same", "yellow")
        return asyncio.run(_estimate(plan, errors) if job.estimate else _map(plan, errors))
    except (UsageError, OSError) as exc:
        _say(errors, f"asyncflow map: {exc}", "red")
        return 2 if plan is None or isinstance(exc, UsageError) else 1


def _checked(job: Job) -> _Plan:
    """Look at everything that can be looked at before a call is made, the cheap things first.

    Raises:
        UsageError, OSError: If something is wrong.
    """
    template = Template(job.prompt)
    rows = rows_of(job.input, encoding=job.encoding, delimiter=job.delimiter)
    schema = None if job.schema is None else schema_in(job.schema)
    if job.output is not None or not job.estimate:
        check_output(job)
    price_of(job)
    check_client(job)
    found = scan(rows, template.columns, limit=job.limit, sample=job.sample if job.estimate else 0)
    if job.output is not None:
        check_names(job, found, schema)
    return _Plan(job, template, schema, rows, found)


async def _map(plan: _Plan, errors: Console) -> int:
    job, found = plan.job, plan.found
    stop, counts = Stop(), Counts()
    trouble: Exception | None = None
    async with AsyncExitStack() as stack:
        client = await client_of(job, stack)
        output = Output(job, plan.rows, found, plan.schema)
        whole = False
        try:
            _announce(errors, job, client, found.rows)
            asking = Asking(job, client, plan.template, plan.schema, stop)
            began = time.perf_counter()
            trouble = await _ask_all(plan, asking, stop, counts, output)
            seconds = time.perf_counter() - began
            if counts.ended == found.rows and stop.reason in SIGNALS:
                stop.reason = None  # it came too late: there is nothing left to stop
            whole = trouble is None and stop.reason is None
        finally:
            trouble = _close(output, whole, counts) or trouble
        used = client.statistics()
    why = stop.reason or ("error" if trouble is not None else None)
    written = str(output.path if why is None else output.part) if why is None or counts.ok else None
    provider = "simulated" if job.simulate else client.base_url
    figures = figures_of(job, provider, counts, used, found.rows, seconds, why, written)
    _report(figures, job)
    if trouble is not None:
        _say(errors, f"asyncflow map: {trouble}", "red")
    if why is not None:
        _say(errors, _farewell(why, stop.error, output, counts), "yellow")
    if why in SIGNALS:
        return SIGNALS[why]
    if why == "denied":
        return 3
    return 1 if why is not None or counts.failed or counts.skipped else 0


def _close(output: Output, whole: bool, counts: Counts) -> Exception | None:
    """Give the output its name, or leave the `.part` where something in it was paid for."""
    try:
        if whole:
            output.finish()
        elif counts.ok:
            output.keep()
        else:
            output.discard()
    except (UsageError, OSError, ValueError, TypeError) as exc:  # the latter two are pyarrow's
        return exc
    return None


async def _ask_all(
    plan: _Plan, asking: Asking, stop: Stop, counts: Counts, output: Output
) -> Exception | None:
    """Ask and write, row after row; returns what went wrong with the files on the way, if anything."""
    job, price = plan.job, price_of(plan.job)
    rows = stop.until(again(plan.rows, plan.found))
    with Progress() as progress, signals(stop), stopped_lane(stop):
        outcomes = stream(
            _named(asking),
            rows,
            concurrency=concurrency_of(job),
            on_error="continue",
            observers=[Shown(progress, plan.found.rows)],
        )
        try:
            async with outcomes:
                async for outcome in outcomes:
                    if getattr(outcome, "value", None) is STOPPED:
                        continue
                    counts.add(outcome)
                    result = result_of(outcome, price, parsed=plan.schema is not None)
                    output.write(outcome.index, outcome.item.values, result)
        except (RowsError, OSError) as exc:
            return exc
    return None


def _named(asking: Asking) -> Any:
    async def rows(row: Any) -> Any:  # the name that the progress shows
        return await asking.ask(row)

    return rows


async def _estimate(plan: _Plan, errors: Console) -> int:
    job = plan.job
    async with AsyncExitStack() as stack:
        client = await client_of(job, stack)
        if not plan.found.rows:
            raise UsageError(f"{job.input}: it has no rows to ask")
        _announce(errors, job, client, len(plan.found.sample))
        asking = Asking(job, client, plan.template, plan.schema, Stop())
        figures, failed = await estimate.estimated(job, asking, plan.found.sample, plan.found.rows)
    for one in failed[:1]:
        _say(errors, f"{len(failed)} failed, such as {one.item.where}: {one.error}", "red")
    figures = {"provider": "simulated" if job.simulate else client.base_url, **figures}
    if job.json:
        sys.stdout.write(json.dumps(figures, ensure_ascii=False, indent=2) + "\n")
    elif figures["seconds"] is not None:
        for line in estimate.lines_of(figures, job.concurrency):
            _say(Console(), line)
        if job.simulate:
            _say(
                Console(), "The sample was answered by the simulated provider: these are no model's figures."
            )
    if figures["seconds"] is not None:
        return 0
    return 3 if any(isinstance(one.error, AccessDeniedError) for one in failed) else 1


def _announce(errors: Console, job: Job, client: LLMClient, rows: int) -> None:
    if job.simulate:
        _say(
            errors,
            f"{counted(rows, 'row')}. The answers come from asyncflow's simulated provider on 127.0.0.1: "
            "a real HTTP server, but no model is asked and nothing is paid.",
        )
    else:
        _say(
            errors,
            f"{counted(rows, 'row')}: asking {client.model} at {client.base_url}, which costs what it costs.",
        )


def _report(figures: dict[str, Any], job: Job) -> None:
    if job.json:
        sys.stdout.write(json.dumps(figures, ensure_ascii=False, indent=2) + "\n")
        return
    console = Console()
    for line in lines_of(figures):
        _say(console, line)


def _farewell(why: str, error: BaseException | None, output: Output, counts: Counts) -> str:
    said = {
        "denied": f"stopped: the provider refuses the key, or the account ({error})",
        "unreachable": f"stopped: the provider does not answer any more ({error})",
        "error": "not finished",
    }.get(why, f"stopped by {why}")
    if not counts.ok:
        return f"{said}. Nothing was answered, and nothing is written."
    return f"{said}. {counted(output.written, 'row')} written to {output.part}; {output.path} was not made."


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(text, style=style or None, markup=False, highlight=False, soft_wrap=True)
