"""`asyncflow demo`: the two programs, timed and shown, against the simulated provider or a real one."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from asyncflow.api.flows import run
from asyncflow.cli.screen import resumes_in, screening
from asyncflow.cli.translate import LANGUAGES, TranslateAtOnce, TranslateInTurn, sections_of
from asyncflow.errors import AsyncflowError
from asyncflow.graph.flow import AsyncFlow
from asyncflow.llm import LLMClient
from asyncflow.observe import Progress
from asyncflow.outcome import Failed

#: Median seconds of an answer of the simulated provider.
LATENCY = 0.04


@dataclass(frozen=True, slots=True)
class _Plan:
    sections: list[str]
    source: str
    folder: Path
    output: Path
    model: str | None
    concurrency: int

    @property
    def calls(self) -> int:
        return 2 * len(LANGUAGES) * len(self.sections) + len(resumes_in(self.folder))


def run_demo(
    *,
    file: Path | None,
    resumes: Path | None,
    output: Path,
    model: str | None,
    concurrency: int,
    as_json: bool,
) -> int:
    """Run the demo; returns the exit code."""
    console = Console(stderr=True) if as_json else Console()
    try:
        text, source = _document(file)
        folder = resumes if resumes is not None else Path(__file__).parent / "resumes"
        if not folder.is_dir():
            raise NotADirectoryError(f"--resumes {folder}: there is no such folder; name one with résumés")
        if not resumes_in(folder):
            raise FileNotFoundError(f"--resumes {folder}: no .txt or .md file in it; name a folder with some")
        for path in resumes_in(folder):
            if not _read(path, "--resumes").strip():  # what cannot be judged is said before a call is made
                raise ValueError(f"--resumes {path}: it is empty; put a résumé's text into it, or remove it")
        plan = _Plan(sections_of(text), source, folder, output, model, concurrency)
        if not plan.sections:
            raise ValueError(f"--file {source}: it is empty; name a Markdown file with some text")
        _make_folder(output)
        figures = asyncio.run(_demo(plan, console))
    except (OSError, ValueError, AsyncflowError) as exc:
        errors = Console(stderr=True)
        errors.print(f"asyncflow demo: {exc}", style="red", markup=False)
        for note in getattr(exc, "__notes__", ()):
            errors.print(f"  {note}", markup=False)
        return 1 if isinstance(exc, AsyncflowError) else 2
    if as_json:
        sys.stdout.write(json.dumps(figures, ensure_ascii=False, indent=2) + "\n")
    return 1 if figures["screening"]["failed"] else 0


async def _demo(plan: _Plan, console: Console) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        llm = await stack.enter_async_context(await _client(plan, console, stack))
        shared: dict[str, Any] = {
            "sections": plan.sections,
            "languages": LANGUAGES,
            "output": plan.output / "translations",
        }
        console.print(
            f"\n{plan.source}: {len(plan.sections)} sections into {len(LANGUAGES)} languages, "
            f"{len(plan.sections) * len(LANGUAGES)} calls",
            markup=False,
        )
        with Progress(console=console) as progress:
            in_turn = await _timed(TranslateInTurn(llm, name="in turn"), shared, progress)
            at_once = await _timed(
                TranslateAtOnce(llm, name=f"{plan.concurrency} at once", concurrency=plan.concurrency),
                shared,
                progress,
            )
            screened: dict[str, Any] = {"folder": plan.folder}
            seconds = await _timed(screening(llm, plan.concurrency), screened, progress)
        usage = llm.statistics().usage
    figures = {
        "provider": "simulated" if plan.model is None else llm.base_url,
        "model": llm.model,
        "calls": plan.calls,
        "seconds_in_turn": round(in_turn, 3),
        "seconds_at_once": round(at_once, 3),
        "speed_up": round(in_turn / at_once, 1),
        "files": [str(path) for path in shared["files"]],
        "screening": {**screened["summary"], "seconds": round(seconds, 3)},
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
    }
    (plan.output / "screening.json").write_text(
        json.dumps(_verdicts(screened["evaluations"]), ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
    )
    _report(figures, screened["evaluations"], plan, console)
    return figures


async def _client(plan: _Plan, console: Console, stack: AsyncExitStack) -> LLMClient:
    """The client for the demo. Only `--model` makes it a real one: a key in the environment does not."""
    if plan.model is not None:
        llm = LLMClient(plan.model)
        console.print(
            f"Asking {plan.model} at {llm.base_url}: {plan.calls} calls, which cost what they cost.",
            markup=False,
        )
        return llm
    from asyncflow.testing import SimulatedProvider

    provider = await stack.enter_async_context(SimulatedProvider(latency=LATENCY))
    console.print(
        "The replies come from asyncflow's simulated provider on 127.0.0.1: a real HTTP server with real "
        "waits, but no model. It marks texts instead of translating them and judges résumés by simple rules. "
        "--model NAME asks a real one.",
        markup=False,
    )
    return LLMClient("simulated", base_url=provider.base_url, api_key="")


async def _timed(node: Any, shared: dict[str, Any], progress: Progress) -> float:
    flow = node if isinstance(node, AsyncFlow) else AsyncFlow(start=node)
    began = time.perf_counter()
    await run(flow, shared, observers=[progress])
    return time.perf_counter() - began


def _report(figures: dict[str, Any], evaluations: list[Any], plan: _Plan, console: Console) -> None:
    table = Table(title="The same node, one number different", title_justify="left")
    for column in ("concurrency", "seconds", "calls per second"):
        table.add_column(column, justify="right")
    calls = len(plan.sections) * len(LANGUAGES)
    for concurrency, seconds in (
        (1, figures["seconds_in_turn"]),
        (plan.concurrency, figures["seconds_at_once"]),
    ):
        table.add_row(str(concurrency), f"{seconds:.2f}", f"{calls / seconds:,.0f}")
    console.print(table)
    console.print(
        f"{figures['speed_up']} times as fast; one file per language in {plan.output / 'translations'}"
    )
    summary = figures["screening"]
    console.print(
        f"\nRésumés: {summary['judged']} judged in {summary['seconds']:.2f} s, "
        f"{len(summary['qualified'])} qualify ({summary['share']:.0%}): "
        f"{', '.join(summary['qualified']) or 'nobody'}",
        markup=False,
    )
    for outcome in evaluations:
        if isinstance(outcome, Failed):
            console.print(f"  failed: {outcome.item[0]}: {outcome.error}", style="red", markup=False)
    if plan.model is None:
        console.print("All replies came from the simulated provider; no model was asked.", markup=False)


def _verdicts(evaluations: list[Any]) -> list[Any]:
    return [
        {"file": one.item[0], "error": str(one.error)} if isinstance(one, Failed) else one
        for one in evaluations
    ]


def _document(file: Path | None) -> tuple[str, str]:
    """The document to translate and what to call it: the file, the checkout's README, the installed one."""
    if file is not None:
        return _read(file, "--file"), str(file)
    readme = Path(__file__).resolve().parents[2] / "README.md"
    if readme.is_file():
        return readme.read_text(encoding="utf-8"), os.path.relpath(readme)
    return metadata.metadata("asyncflow-engine")["Description"], "asyncflow's README"


def _read(path: Path, option: str) -> str:
    """The text of a file that the user named.

    Raises:
        ValueError: If it cannot be read, or is not UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise ValueError(f"{option} {path}: it is not UTF-8 text ({exc.reason} at byte {exc.start})") from exc
    except OSError as exc:
        raise ValueError(
            f"{option} {path}: {exc.strerror or exc}; name a text file that you may read"
        ) from exc


def _make_folder(output: Path) -> None:
    """Make the folder for what the demo writes.

    Raises:
        ValueError: If that cannot be done.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        why = "it is a file" if output.is_file() else exc.strerror or exc
        raise ValueError(
            f"--output {output}: no folder can be made there ({why}); name a folder, there already or not"
        ) from exc
