"""Eight pieces of NumPy work on threads, while the event loop goes on ticking.

Shows that a plain function given to `amap` runs on worker threads: other tasks of the loop stay responsive.
With `offload=False` the same work runs on the loop, which stands still meanwhile. A metronome that should
tick every five milliseconds tells the difference.

    python examples/numpy_off_the_loop.py [matrix size]       (600 by default)
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import numpy as np

from asyncflow import amap

TICK = 0.005


class Metronome:
    """Ticks on the loop every `TICK` seconds and remembers the longest pause."""

    def __init__(self) -> None:
        self.ticks = 0
        self.longest = 0.0

    async def __aenter__(self) -> Metronome:
        self._last = time.perf_counter()
        self._timer = asyncio.get_running_loop().call_soon(self._tick)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._timer.cancel()
        self.longest = max(self.longest, time.perf_counter() - self._last)

    def _tick(self) -> None:
        now = time.perf_counter()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        self.ticks += 1
        self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)


def largest_singular_value(matrix: np.ndarray) -> float:
    return float(np.linalg.svd(matrix, compute_uv=False)[0])


async def both(size: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    matrices = [rng.standard_normal((size, size)) for _ in range(8)]
    found: dict[str, Any] = {}
    for place, offload in (("on threads", True), ("on the loop", False)):
        began = time.perf_counter()
        async with Metronome() as metronome:
            values = await amap(largest_singular_value, matrices, concurrency=2, offload=offload)
        seconds = time.perf_counter() - began
        print(
            f"{place}: {len(values)} singular values in {seconds:.2f} s; {metronome.ticks} ticks, "
            f"the longest pause {metronome.longest * 1000:.0f} ms"
        )
        found[place] = {"values": values, "ticks": metronome.ticks, "longest": metronome.longest}
    return found


def main(size: int = 600) -> dict[str, Any]:
    return asyncio.run(both(size))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
