"""What an answer from the cache costs, beside what the call costs that it saves.

    python tests/benchmarks/cache.py [--answers 5000] [--repeat 5] [--at 1 64]

CPU of the whole process, its threads included, per `complete`: hits from a SQLite file, from a dict (what
the client itself takes), first calls to a provider in the same process that answers at once (so only its
excess over the same without a cache tells what keeping costs), in turns; the median of `repeat` turns counts.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from asyncflow.llm import LLMClient
from asyncflow.testing import MemoryCache, SimulatedProvider

PROMPT = "Translate to French: " + "the quick brown fox jumps over the lazy dog " * 5
ANSWER = "word " * 60


async def turn(provider: SimulatedProvider, cache: Any, answers: int, at_once: int) -> tuple[float, float]:
    """CPU and wall microseconds of one `complete`."""
    async with LLMClient("m", base_url=provider.base_url, api_key="", cache=cache, concurrency=None) as llm:
        numbers = iter(range(answers))

        async def worker() -> None:
            for n in numbers:
                await llm.complete(f"{PROMPT} {n}")

        await llm.complete("the first call opens what is opened late")
        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(worker() for _ in range(at_once)))
        return (time.process_time() - cpu) / answers * 1e6, (time.perf_counter() - wall) / answers * 1e6


async def compare(directory: Path, answers: int, repeat: int, at: list[int]) -> None:
    with SimulatedProvider(latency=0, reply=lambda asked: ANSWER) as provider:
        filled, memory = directory / "filled.db", MemoryCache()
        for cache in (filled, memory):
            await turn(provider, cache, answers, 64)
        print(f"\nPython {platform.python_version()}, {answers:,} answers of {len(ANSWER)} characters\n")
        print("| at once | what | CPU µs each | wall µs each |\n|---|---|---|---|")
        for at_once in at:
            found: dict[str, list[tuple[float, float]]] = {}
            for number in range(repeat):
                ways = {
                    "hit, SQLite": filled,
                    "hit, a dict": memory,
                    "call, kept in SQLite": directory / f"new-{at_once}-{number}.db",
                    "call, no cache": None,
                }
                for name, cache in ways.items():
                    found.setdefault(name, []).append(await turn(provider, cache, answers, at_once))
            for name, turns in found.items():
                cpu, wall = (median(one[which] for one in turns) for which in (0, 1))
                print(f"| {at_once} | {name} | {cpu:.0f} | {wall:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--answers", type=int, default=5000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--at", type=int, nargs="+", default=[1, 64])
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(compare(Path(directory), chosen.answers, chosen.repeat, chosen.at))


if __name__ == "__main__":
    main()
