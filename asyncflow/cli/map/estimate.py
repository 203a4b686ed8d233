"""`--estimate`: a few rows are asked, and what all of them would cost and take is said."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from asyncflow.api.items import amap
from asyncflow.cli.map.asking import Asking
from asyncflow.cli.map.checks import Plan
from asyncflow.cli.map.client import client_of, concurrency_of, price_of
from asyncflow.cli.map.job import Job
from asyncflow.cli.map.rows import Row
from asyncflow.cli.map.told import announce, say
from asyncflow.cli.usage import UsageError
from asyncflow.engine.stopping import Stop
from asyncflow.errors import AccessDeniedError
from asyncflow.llm import Completion, LLMClient, Range
from asyncflow.llm.estimate import estimate_of
from asyncflow.llm.kept import asking_anew
from asyncflow.outcome import Failed


async def run_estimate(plan: Plan) -> int:
    """Ask the sample, and say what all rows would need; returns the exit code."""
    job = plan.job
    async with AsyncExitStack() as stack:
        client: LLMClient = await client_of(job, stack)
        if not plan.found.rows:
            raise UsageError(f"{job.input}: it has no rows to ask")
        announce(job, client, len(plan.found.sample))
        asking = Asking(job, client, plan.template, plan.schema, Stop())
        with asking_anew():  # what a cache has says nothing about the others
            figures, failed = await estimated(job, asking, plan.found.sample, plan.found.rows)
    for one in failed[:1]:
        say(f"{len(failed)} failed, such as {one.item.where}: {one.error}", "red")
    figures = {"provider": "simulated" if job.simulate else client.base_url, **figures}
    if job.json:
        sys.stdout.write(json.dumps(figures, ensure_ascii=False, indent=2) + "\n")
    elif figures["seconds"] is not None:
        for line in lines_of(figures, job.concurrency):
            say(line, out=True)
        if job.simulate:
            say("The sample was answered by the simulated provider: these are no model's figures.", out=True)
    if figures["seconds"] is not None:
        return 0
    return 3 if any(isinstance(one.error, AccessDeniedError) for one in failed) else 1


async def estimated(
    job: Job, asking: Asking, sample: Sequence[Row], rows: int
) -> tuple[dict[str, Any], list[Failed]]:
    """The figures, and the rows of the sample that failed.

    The sample is asked and paid for. Where all of it failed, the figures of the whole are None; where answers
    said nothing of usage, those of tokens and money are.
    """

    async def timed(row: Row) -> tuple[Completion, float]:
        began = time.perf_counter()
        completion, _ = await asking.ask(row)
        return completion, time.perf_counter() - began

    outcomes: list[Any] = await amap(
        timed, sample, concurrency=min(8, concurrency_of(job)), on_error="continue"
    )
    failed = [one for one in outcomes if isinstance(one, Failed)]
    done = [one for one in outcomes if not isinstance(one, Failed)]
    price = price_of(job)
    figures: dict[str, Any] = {"rows": rows, "sampled": len(sample), "failed": len(failed)}
    if not done:
        figures |= dict.fromkeys(("input_tokens", "output_tokens", "cost", "seconds", "spent"))
        return figures, failed
    estimate = estimate_of(
        done,
        rows,
        len(failed),
        price,
        requests_per_minute=job.requests_per_minute,
        tokens_per_minute=job.tokens_per_minute,
    )
    told = estimate.spent.reported
    figures["input_tokens"] = _range(estimate.input_tokens) if told else None
    figures["output_tokens"] = _range(estimate.output_tokens) if told else None
    figures["cost"] = None if estimate.cost is None else _range(estimate.cost)
    figures["seconds"] = _range(estimate.seconds(job.concurrency))
    figures["spent"] = price.of(estimate.spent) if price is not None and told else None
    return figures, failed


def lines_of(figures: dict[str, Any], concurrency: int | str) -> list[str]:
    """The estimate for people, a line each."""
    lines = [f"{figures['sampled']} of {figures['rows']:,} rows were asked; all of them would need about"]
    for name, label in (("input_tokens", "tokens read"), ("output_tokens", "tokens written")):
        said = "unknown" if figures[name] is None else _between(figures[name], ",.0f")
        lines.append(f"  {label:15}{said:>12}")
    if figures["cost"] is not None:
        lines.append(
            f"  {'cost':15}{_between(figures['cost'], ',.4g')}  (the sample: {figures['spent']:.4g})"
        )
    at_once = f"{concurrency}, if nothing is refused" if concurrency == "auto" else concurrency
    lines.append(f"  {'seconds':15}{_between(figures['seconds'], ',.1f')}  at --concurrency {at_once}")
    if figures["input_tokens"] is None:
        lines.append("The provider says nothing of tokens, so nobody knows what it costs")
    if figures["failed"]:
        lines.append(f"{figures['failed']} of the sample failed and are not in these figures")
    return [*lines, "The range holds nine times in ten, if the other rows are like these."]


def _range(value: Range) -> dict[str, float | None]:
    high = value.high if math.isfinite(value.high) else None
    return {"expected": value.expected, "low": value.low, "high": high}


def _between(value: dict[str, float | None], form: str) -> str:
    high = "unknown" if value["high"] is None else format(value["high"], form)
    return f"{format(value['expected'], form):>12}  ({format(value['low'], form)} to {high})"
