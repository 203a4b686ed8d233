"""A run that is killed half-way, stopped by Ctrl-C later, and comes to its end with all results.

Reviews are classified by a model (asyncflow's simulated provider, which counts what it is asked). The program
starts itself again and again as a process of its own, with the same store and the same run id. The first is
killed (SIGKILL) when half of the reviews are done, the second gets a Ctrl-C (SIGINT) at three quarters, the
third ends. The fourth finds everything done and asks nothing.

    python examples/killed_and_resumed.py [reviews]          (400 by default)
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from asyncflow import AsyncFlow, AsyncParallelBatchNode, run, stop_on_signals
from asyncflow.errors import RunStoppedError
from asyncflow.events import RunResumed
from asyncflow.llm import LLMClient
from asyncflow.testing import SimulatedProvider

CONCURRENCY = 8


class Classify(AsyncParallelBatchNode):
    """Asks the model about each review, and tells the process that watches how far it is."""

    concurrency = CONCURRENCY

    def __init__(self, client: LLMClient) -> None:
        super().__init__()
        self.client = client

    async def prep_async(self, shared: dict[str, Any]) -> list[str]:
        return [f"review {number}: the staff was kind" for number in range(shared["count"])]

    async def exec_async(self, review: str) -> str:
        return (await self.client.complete(f"One word for the mood of: {review}")).text

    def post_item(self, shared: dict[str, Any], review: str, label: str) -> None:
        shared["labels"][review] = label
        print(len(shared["labels"]), flush=True)


async def work(folder: Path, base_url: str, count: int) -> None:
    """What each process does. Nothing in it knows of kills: a store, a run id, and a way to be stopped."""
    shared: dict[str, Any] = {"count": count, "labels": {}}
    async with LLMClient("any-model", base_url=base_url, api_key="", concurrency=CONCURRENCY) as client:
        with stop_on_signals() as stop:
            await run(
                AsyncFlow(start=Classify(client)),
                shared,
                store=folder / "runs.db",
                run_id="reviews",
                stop=stop,
                observers=[say_what_is_done],
            )
    (folder / "labels.json").write_text(json.dumps(shared["labels"]), encoding="utf-8")


def say_what_is_done(event: object) -> None:
    if isinstance(event, RunResumed):
        print(f"  it goes on: {event.found}", file=sys.stderr)


def start(folder: Path, base_url: str, count: int, end_at: int | None, how: signal.Signals | None) -> int:
    """Run `work` as a process and end it when so many reviews are done. Returns its exit code."""
    command = [sys.executable, __file__, "work", str(folder), base_url, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if end_at is not None and how is not None and int(line) == end_at:
                process.send_signal(how)
                end_at = None
    return process.returncode


def main(count: int = 400) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with SimulatedProvider(reply=lambda asked: "kind", latency=0.01) as provider:
            paid, codes = [0], []
            for what, end_at, how in (
                ("killed half-way", count // 2, signal.SIGKILL),
                ("stopped by Ctrl-C at three quarters", count * 3 // 4, signal.SIGINT),
                ("left alone", None, None),
                ("started once more", None, None),
            ):
                codes.append(start(folder, provider.base_url, count, end_at, how))
                paid.append(provider.statistics().asked)
                print(f"{what}: the model was asked {paid[-1] - paid[-2]:,} times (exit code {codes[-1]})")
        labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    twice = paid[-1] - count
    print(f"{len(labels):,} of {count:,} reviews have a label; {twice} were paid for twice, those that were")
    print(f"in flight at the kill or not yet recorded: at most {2 * CONCURRENCY}")
    return {"labels": len(labels), "paid": paid, "twice": twice, "codes": codes}


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        try:
            asyncio.run(work(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
        except RunStoppedError as error:
            print(f"  {error}", file=sys.stderr)
            sys.exit(130)
    else:
        main(*map(int, sys.argv[1:]))
