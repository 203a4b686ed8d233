"""What `asyncflow run` says: first, at the end, and where it ends otherwise."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

from asyncflow.cli.store.shown import money
from asyncflow.cli.tables.values import plain
from asyncflow.events import Event, RunResumed, Statistics
from asyncflow.outcome import Spent


def say(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


def say_found(event: Event) -> None:
    """An observer: what an earlier process left is said before anything else."""
    if isinstance(event, RunResumed):
        say(f"Going on with run {event.run_id}: {event.found}")


def figures_of(
    *,
    run_id: str,
    store: str,
    status: str,
    action: Any,
    shared: Any,
    statistics: Statistics | None,
    spent: Spent | None,
    error: dict[str, Any] | None,
) -> dict[str, Any]:
    """The result as JSON; what JSON does not know is shown as text."""
    return {
        "run": run_id,
        "store": store,
        "status": status,
        "action": action if action is None else str(action),
        "statistics": None if statistics is None else dataclasses.asdict(statistics),
        "spent": None if spent is None else dataclasses.asdict(spent),
        "error": error,
        "shared": _shown(shared),
    }


def lines_of(figures: dict[str, Any]) -> list[str]:
    """The same for people."""
    done = figures["statistics"]
    parts = [f"{done['succeeded']:,} items done"]
    parts += [f"{done['recalled']:,} of them read back"] if done["recalled"] else []
    parts += [f"{done[name]:,} {name}" for name in ("failed", "skipped", "cancelled") if done[name]]
    lines = [f"{figures['status']} in {done['seconds']:.1f} s: {', '.join(parts)}"]
    spent = figures["spent"]
    if spent is not None and (spent["input_tokens"] or spent["output_tokens"]):
        cost = "" if spent["cost"] is None else f", cost {money(spent['cost'])}"
        lines.append(f"{spent['input_tokens']:,} tokens read, {spent['output_tokens']:,} written{cost}")
    return [*lines, f"run {figures['run']} in {figures['store']}"]


def _shown(shared: Any) -> Any:
    try:
        json.dumps(value := plain(shared))
    except (ValueError, TypeError, RecursionError):
        return str(shared)
    return value
