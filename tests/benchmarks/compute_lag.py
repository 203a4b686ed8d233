"""How late the event loop is while every worker computes: `python tests/benchmarks/compute_lag.py`.

Four softmaxes of 8192 by 1000 at a time are offloaded for two seconds, with workers(2); a timer on the loop
fires every 10 ms and notes by how much it was late. The goal is a largest delay below 50 ms.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from asyncflow.compute import offload, softmax, statistics, workers  # noqa: E402


async def main() -> None:
    x = np.random.default_rng(0).standard_normal((8192, 1000)).astype(np.float32)
    end, calls = time.perf_counter() + 2, 0
    statistics(reset=True)
    with workers(2):
        while time.perf_counter() < end:
            await asyncio.gather(*(offload(softmax, x) for _ in range(4)))
            calls += 4
    now = statistics()
    print(f"{calls} calls, {now.loop_lag_samples} delays measured")
    print(f"largest {now.loop_lag_max * 1e3:.1f} ms, 99th of a hundred {now.loop_lag_p99 * 1e3:.1f} ms")


if __name__ == "__main__":
    asyncio.run(main())
