"""Peak memory of one run, each in a process of its own: `python -m tests.benchmarks.memory stream 1000000`.

Items come from a generator and no result is kept, so a flat engine needs no more for a million items than for
ten thousand. `bare pool` is the floor: what the interpreter itself does between the two counts.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.programs import no_op

ROOT = Path(__file__).resolve().parents[2]
CONCURRENCY = 1000


async def bare_pool(count: int) -> int:
    done = 0
    source = iter(range(count))

    async def worker() -> None:
        nonlocal done
        for item in source:
            await no_op(item)
            done += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(worker())
    return done


async def stream(count: int) -> int:
    import asyncflow

    done = 0
    async for _ in asyncflow.stream(no_op, (item for item in range(count)), concurrency=CONCURRENCY):
        done += 1
    return done


async def post_item(count: int) -> int:
    import asyncflow

    class Counted(asyncflow.AsyncParallelBatchNode):
        async def prep_async(self, shared: dict[str, int]) -> Any:
            return (item for item in range(count))

        async def exec_async(self, item: int) -> int:
            return await no_op(item)

        def post_item(self, shared: dict[str, int], item: int, exec_res: int) -> None:
            shared["done"] += 1

    shared = {"done": 0}
    await Counted(concurrency=CONCURRENCY).run_async(shared)
    return shared["done"]


RUNS = {"bare pool": bare_pool, "stream": stream, "post_item": post_item}


def peak_mib() -> float:
    """The most this process has held in memory so far.

    Linux keeps `ru_maxrss` across exec, so a child starts with its parent's peak; VmHWM is the program's.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        unit = 1024**2 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def peak_in_child(run: str, count: int) -> float:
    """Peak MiB of a fresh process that does `count` items in the way called `run`."""
    command = [sys.executable, "-m", "tests.benchmarks.memory", run, str(count)]
    return float(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout)


if __name__ == "__main__":
    run, count = sys.argv[1], int(sys.argv[2])
    done = asyncio.run(RUNS[run](count))
    if done != count:
        raise AssertionError(f"{run}: {done} results for {count} items")
    print(peak_mib())
