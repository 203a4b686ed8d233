"""Cutting an operation into tiles, and running the tiles on one thread or on several.

The plan depends on the shape of the work and never on the number of threads, each tile writes only what
is its own, and what tiles compute together (a sum, a statistic) is merged in the order of the tiles. So
sequential and parallel runs have equal bits.

A tile is about 2 MiB: every NumPy call gives the interpreter lock back and takes it again, and with
smaller tiles two threads spend their time waiting for it (64 KiB tiles run slower on two threads than on
one; measured, see `tests/benchmarks/compute_kernels.py`).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any

import numpy as np

from asyncflow.compute.settings import threads
from asyncflow.threads import Job, ThreadPool, cpu_count, one_blas_thread

#: Bytes of the largest array that one tile touches.
TILE_BYTES = 2 << 20

#: Numbers in the buffers of NumPy's loops. An operand with one number per row or per column is copied into
#: a buffer if two rows fit in there, which costs as much as the operation: 1.4 against 0.75 ns per number.
BUFFER = 1008

#: One number for everything of `compute` that runs beside the caller: tiles, gathers of a loader, `offload`.
budget = ThreadPool(cpu_count())

#: True inside a tile: an operation called from there runs on the tile's own thread.
_in_tile: ContextVar[bool] = ContextVar("asyncflow_compute_in_tile", default=False)


def plan(rows: int, row_bytes: int, *, tile_bytes: int = TILE_BYTES) -> list[slice]:
    """Cut `rows` rows into tiles of nearly equal size, none much larger than `tile_bytes`.

    Example:
        >>> plan(10, 1 << 20)
        [slice(0, 2, None), slice(2, 4, None), slice(4, 6, None), slice(6, 8, None), slice(8, 10, None)]
    """
    if rows <= 0:
        return []
    if rows * row_bytes <= tile_bytes:
        return [slice(0, rows)]
    count = min(rows, -(-rows * row_bytes // tile_bytes))
    bounds = [rows * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(bounds)]


def run_tiles(task: Callable[[int], None], count: int) -> None:
    """Call `task(0)` … `task(count - 1)`, on as many threads as `workers` allows; return when all are done.

    The caller works too and never waits for a thread that has not started, so a busy budget makes an
    operation slower and cannot block it. Floating-point flags are ignored inside: infinities and NaN come
    through as values. If tasks raise, the error of the lowest tile that ran is raised, once none runs.
    """
    with np.errstate(all="ignore"), one_blas_thread():
        np.setbufsize(BUFFER)  # put back by errstate, which holds all of NumPy's settings
        wanted = min(threads(), count)
        if wanted <= 1 or _in_tile.get():
            for index in range(count):
                task(index)
            return
        _run_shared(task, count, wanted - 1)


def _run_shared(task: Callable[[int], None], count: int, helpers: int) -> None:
    left = deque(range(count))
    failed: list[tuple[int, BaseException]] = []
    finished: SimpleQueue[None] = SimpleQueue()

    def work() -> None:
        token = _in_tile.set(True)
        try:
            with one_blas_thread():
                while True:
                    try:
                        index = left.popleft()
                    except IndexError:
                        return
                    try:
                        task(index)
                    except BaseException as exc:
                        failed.append((index, exc))
                        left.clear()
                        return
        finally:
            _in_tile.reset(token)

    def done(_: Job) -> None:
        finished.put(None)

    jobs = [budget.submit(work, done=done) for _ in range(helpers)]
    work()
    running = sum(not job.withdraw() for job in jobs)
    for _ in range(running):
        finished.get()
    if failed:
        raise min(failed, key=lambda pair: pair[0])[1]


def map_tiles(task: Callable[[slice], Any], tiles: list[slice]) -> list[Any]:
    """Run `task` on each tile and return what it returned, in the order of the tiles."""
    results: list[Any] = [None] * len(tiles)

    def one(index: int) -> None:
        results[index] = task(tiles[index])

    run_tiles(one, len(tiles))
    return results
