"""Results as they come, in flat memory: `stream` and `post_item` over items that nobody could hold in a list.

Shows both ways to take results one by one, with retries and `on_error="continue"`. The work is a stand-in for
a call that fails now and then: item n breaks at its first attempt where n ends in 3 (and is tried again), and
for good where n ends in 999. So every count that the report gives is known before.

    python examples/streaming_results.py [items]          (300,000 by default)
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asyncflow import AsyncFlow, AsyncParallelBatchNode, Failed, Retry, run, stream

RETRY = Retry(attempts=3, wait=0)  # repeats connection errors and timeouts, not a ValueError


class Service:
    """Remembers whom it has refused once."""

    def __init__(self) -> None:
        self.refused: set[int] = set()

    async def ask(self, n: int) -> dict[str, int]:
        await asyncio.sleep(0)
        if n % 1000 == 999:
            raise ValueError(f"{n} is not accepted")
        if n % 10 == 3 and n not in self.refused:
            self.refused.add(n)
            raise ConnectionError("try again")
        self.refused.discard(n)
        return {"n": n, "square": n * n}


def numbers(count: int) -> Iterator[int]:
    """A source without a length, pulled one item at a time."""
    yield from range(count)


class SquareToFile(AsyncParallelBatchNode):
    """Writes each result as a line, in input order. `post_item` means that no list is kept."""

    concurrency = 200
    retry = RETRY
    on_error = "continue"

    def __init__(self, service: Service) -> None:
        super().__init__()
        self.service = service

    async def prep_async(self, shared: dict[str, Any]) -> Iterator[int]:
        return numbers(shared["count"])

    async def exec_async(self, n: int) -> dict[str, int]:
        return await self.service.ask(n)

    def post_item(self, shared: dict[str, Any], n: int, result: dict[str, int] | Failed) -> None:
        if isinstance(result, Failed):
            result = {"n": n, "error": str(result.error)}
        shared["file"].write(json.dumps(result) + "\n")


async def by_stream(count: int) -> dict[str, Any]:
    kinds: Counter[str] = Counter()
    total = 0
    async with stream(
        Service().ask, numbers(count), concurrency=200, retry=RETRY, on_error="continue"
    ) as outcomes:
        async for outcome in outcomes:
            kinds[type(outcome).__name__] += 1
            if not isinstance(outcome, Failed):
                total += outcome.value["n"]
        statistics = outcomes.statistics()
    print(f"stream: {kinds['Ok']:,} ok, {kinds['Failed']:,} failed, {statistics.retries:,} retries")
    print(f"  {statistics.started / statistics.seconds:,.0f} items/s; sum of what came: {total:,}")
    return {"ok": kinds["Ok"], "failed": kinds["Failed"], "retries": statistics.retries, "total": total}


async def by_post_item(count: int, path: Path) -> dict[str, Any]:
    with path.open("w", encoding="utf-8") as file:
        node = SquareToFile(Service())
        result = await run(AsyncFlow(start=node), {"count": count, "file": file})
    found = result.statistics
    print(f"post_item: {found.succeeded:,} ok, {found.failed:,} failed, {found.retries:,} retries")
    print(f"  {found.started / found.seconds:,.0f} items/s; {path.stat().st_size / 2**20:.1f} MiB of lines")
    return {"ok": found.succeeded, "failed": found.failed, "retries": found.retries}


def peak_memory_mib() -> float:
    """The most memory that this process has held so far, or NaN where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def main(count: int = 300_000, path: Path | None = None) -> dict[str, Any]:
    if path is None:
        with tempfile.TemporaryDirectory() as folder:
            return main(count, Path(folder) / "squares.jsonl")
    before = peak_memory_mib()
    found = {
        "stream": asyncio.run(by_stream(count)),
        "post_item": asyncio.run(by_post_item(count, path)),
    }
    print(f"{count:,} items twice; peak memory {before:.0f} MiB before, {peak_memory_mib():.0f} MiB after")
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
