"""What `asyncflow map` says to people: before, after, and where it ends early."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console

from asyncflow.cli.map.job import Job
from asyncflow.cli.map.summary import Counts, counted, lines_of
from asyncflow.cli.store.again import command_again
from asyncflow.cli.store.shown import one_line
from asyncflow.errors import ResumeMismatchError
from asyncflow.llm import LLMClient


def say(text: str, style: str = "", *, out: bool = False) -> None:
    """A line on standard error, or on standard output."""
    Console(stderr=not out).print(text, style=style or None, markup=False, highlight=False, soft_wrap=True)


def say_wrong(text: object) -> None:
    """What is wrong."""
    say(f"asyncflow map: {text}", "red")


def announce(job: Job, client: LLMClient, rows: int) -> None:
    """Who is about to be asked how much."""
    if job.simulate:
        say(
            f"{counted(rows, 'row')}. The answers come from asyncflow's simulated provider on 127.0.0.1: "
            "a real HTTP server, but no model is asked and nothing is paid."
        )
    else:
        say(f"{counted(rows, 'row')}: asking {client.model} at {client.base_url}, which costs what it costs.")


def report(figures: dict[str, Any], job: Job) -> None:
    """The summary, on standard output."""
    if job.json:
        sys.stdout.write(json.dumps(figures, ensure_ascii=False, indent=2) + "\n")
        return
    for line in lines_of(figures):
        say(line, out=True)


def say_changed(job: Job, run_id: str, error: ResumeMismatchError) -> None:
    """Why the run does not go on, and what may be done."""
    say_wrong(f"{job.output} is of run {run_id}, which was begun with something else:")
    for one in error.differences:
        say(f"  {one_line(one, 400)}")
    say(
        "Nothing was asked. --changed keep keeps its answers and asks the rest anew; --changed drop asks all "
        "rows again; --new begins another run; another -o leaves this one alone."
    )


def farewell(
    why: str, error: BaseException | None, job: Job, counts: Counts, rows: int, written: bool
) -> str:
    """How it ended early, what there is, and the command that goes on."""
    said = {
        "denied": f"stopped: the provider refuses the key, or the account ({error})",
        "unreachable": f"stopped: the provider does not answer{' any more' if counts.ok else ''} ({error})",
        "error": "not finished",
    }.get(why, f"stopped by {why}")
    if written:
        said += f". {counted(counts.ended, 'row')} of {rows:,} are in {job.output}"
    elif counts.ended:
        said += (
            f". {counted(counts.ended, 'row')} of {rows:,} ended and are kept; {job.output} was not written"
        )
    else:
        said += ". Nothing was answered, and nothing is written"
    return f"{said}. This goes on:\n  {command_again()}"
