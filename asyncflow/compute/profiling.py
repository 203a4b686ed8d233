"""What a batch size costs: time, throughput, memory, and the size beyond which more gains little.

Sizes take turns, so a slow moment of the machine hits all of them; the first rounds are not counted; what is
reported is the median. The time of a batch is fitted as t(b) = a + c·b: `a` is what a call costs whatever its
size, `c` what a sample costs.
"""

from __future__ import annotations

import math
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from asyncflow.compute.checks import Array, count
from asyncflow.errors import NotSupportedError, RangeError, ShapeError

#: A batch this much slower per sample than an endless one is at the knee: nine tenths of the throughput.
KNEE_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class BatchSizeRecord:
    """One batch size.

    Attributes:
        batch_size: Samples per call.
        seconds: Median time of a call, which is the latency of a batch.
        spread: Half the middle half of the times, as a share of the median; above 0.15 the machine was busy.
        samples_per_second: batch_size / seconds.
        seconds_per_sample: seconds / batch_size.
        peak_bytes: The most memory that NumPy and Python held more during a call than before, or None.
        repeats: Calls counted.
    """

    batch_size: int
    seconds: float
    spread: float
    samples_per_second: float
    seconds_per_sample: float
    peak_bytes: int | None
    repeats: int


@dataclass(frozen=True, slots=True)
class BatchProfile:
    """What `profile_batch_sizes` found.

    Attributes:
        records: One per size, in ascending order.
        call_seconds: `a` of the fit t(b) = a + c·b, at least 0.
        sample_seconds: `c` of the fit, above 0.
        knee: The smallest measured size whose throughput is nine tenths of the best measured one.
    """

    records: tuple[BatchSizeRecord, ...]
    call_seconds: float
    sample_seconds: float
    knee: int

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[BatchSizeRecord]:
        """The records, so that `pandas.DataFrame(profile)` is a table of them."""
        return iter(self.records)

    def predicted_seconds(self, batch_size: int) -> float:
        """What the fit says a batch of that size takes."""
        return self.call_seconds + self.sample_seconds * batch_size

    def to_frame(self) -> Any:
        """The records as a pandas frame, one row per size."""
        import pandas as pd

        return pd.DataFrame([asdict(record) for record in self.records]).set_index("batch_size")

    def plot(self, path: str | None = None) -> Any:
        """Throughput and latency over the size, as a matplotlib figure; saved if there is a path.

        Raises:
            NotSupportedError: If matplotlib is not installed (`pip install 'asyncflow-engine[plot]'`).
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as exc:
            raise NotSupportedError("plot needs the extra: pip install 'asyncflow-engine[plot]'") from exc
        sizes = [r.batch_size for r in self.records]
        figure = Figure(figsize=(7, 4), layout="constrained")
        left = figure.add_subplot()
        left.plot(sizes, [r.samples_per_second for r in self.records], "o-", label="throughput")
        left.axvline(self.knee, linestyle=":", color="grey", label=f"knee: {self.knee}")
        left.set(xscale="log", xlabel="batch size", ylabel="samples per second")
        right = left.twinx()
        right.plot(sizes, [r.seconds * 1e3 for r in self.records], "s--", color="tab:red", label="latency")
        right.set(yscale="log", ylabel="milliseconds per batch")
        figure.legend(loc="outside upper center", ncols=3)
        if path is not None:
            figure.savefig(path)
        return figure


def profile_batch_sizes(
    fn: Callable[..., Any],
    X: Array,
    y: Array | None = None,
    *,
    batch_sizes: Sequence[int] = (1, 8, 32, 128, 512),
    repeats: int = 9,
    warmup: int = 2,
    memory: bool = True,
) -> BatchProfile:
    """Measure `fn(batch)`, or `fn(batch, targets)`, at several batch sizes.

    Batches are cut before the clock starts, and each holds exactly its size; a loader, a shuffle or a small
    last batch is not part of what is measured. fn should not learn: running statistics that move, or
    parameters that change, are the caller's.

    Args:
        fn: A model (a `Sequential` is callable), or any function of a batch.
        X: Samples, shape (n, …).
        y: Targets, shape (n, …), handed to fn as its second argument.
        batch_sizes: Sizes, each from 1 to n.
        repeats: Counted calls per size, at least 3.
        warmup: Calls per size before that.
        memory: Also measure the peak memory, in one extra call per size.

    Raises:
        RangeError: If a size is larger than n, or there are fewer than two sizes to fit.
        ShapeError: If y is not as long as X.

    Example:
        >>> profile = profile_batch_sizes(np.tanh, np.zeros((256, 64)), batch_sizes=[16, 256], repeats=3)
        >>> [record.batch_size for record in profile.records]
        [16, 256]
        >>> list(profile.to_frame().columns)[:2]
        ['seconds', 'spread']
    """
    X = np.asarray(X)
    if y is not None and len(y) != len(X):
        raise ShapeError(f"y must have as many samples as X, {len(X)}, got {len(y)}")
    sizes = sorted({count("batch_sizes", size) for size in batch_sizes})
    if len(sizes) < 2:
        raise RangeError(f"batch_sizes must hold at least two sizes for a fit, got {sizes}")
    if sizes[-1] > len(X):
        raise RangeError(f"batch_sizes must be at most the number of samples, {len(X)}, got {sizes[-1]}")
    count("repeats", repeats, least=3), count("warmup", warmup, least=0)
    calls = {
        size: (X[:size].copy(),) if y is None else (X[:size].copy(), np.asarray(y)[:size].copy())
        for size in sizes
    }
    times: dict[int, list[float]] = {size: [] for size in sizes}
    for round_ in range(warmup + repeats):
        # Every other round backwards: a size must not always follow the same neighbour.
        for size in sizes if round_ % 2 else sizes[::-1]:
            began = time.perf_counter_ns()
            fn(*calls[size])
            if round_ >= warmup:
                times[size].append((time.perf_counter_ns() - began) / 1e9)
    peaks = {size: _peak(fn, calls[size]) if memory else None for size in sizes}
    records = tuple(_record(size, times[size], peaks[size]) for size in sizes)
    return BatchProfile(records, *_fit(records), _knee(records))


def _record(size: int, times: list[float], peak: int | None) -> BatchSizeRecord:
    low, middle, high = np.percentile(times, [25, 50, 75])
    seconds = max(float(middle), 1e-9)
    return BatchSizeRecord(
        size, seconds, float(high - low) / 2 / seconds, size / seconds, seconds / size, peak, len(times)
    )


def _peak(fn: Callable[..., Any], args: tuple[Array, ...]) -> int:
    was_on = tracemalloc.is_tracing()
    if not was_on:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        fn(*args)
        return max(0, tracemalloc.get_traced_memory()[1] - before)
    finally:
        if not was_on:
            tracemalloc.stop()


def _fit(records: tuple[BatchSizeRecord, ...]) -> tuple[float, float]:
    """a and c of a + c·b with the smallest relative errors; a is not negative."""
    sizes = np.array([r.batch_size for r in records], np.float64)
    seconds = np.array([r.seconds for r in records])
    # Divided by the time, so that the largest batch does not decide alone.
    (a, c), *_ = np.linalg.lstsq(np.stack([1 / seconds, sizes / seconds], axis=1), np.ones(len(sizes)))
    if a < 0:
        a, c = 0.0, float((sizes / seconds).sum() / ((sizes / seconds) ** 2).sum())
    return float(a), max(float(c), math.ulp(0.0))


def _knee(records: tuple[BatchSizeRecord, ...]) -> int:
    best = max(r.samples_per_second for r in records)
    return next(r.batch_size for r in records if r.samples_per_second >= KNEE_SHARE * best)
