"""Interleaved timing and a Markdown table, for every benchmark of the project.

Cases run in turn, round after round (A B C, A B C, ...), so that a slow minute of the machine falls on all
alike; a round before the first is the warm-up and is thrown away. Each sample starts from a collected heap,
its older objects frozen out of the collector: what the collector costs is then the case's own doing, not that
of a library imported before it. The collector stays on, as it is for users.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import platform
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median
from time import perf_counter


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to time.

    Args:
        name: What rows and bases call it.
        items: Items that one call does.
        call: Does them and returns how many results it has; async (timed inside a fresh loop, without the
            making of the loop) or plain (timed with no loop at all).
        needs: A module that may be missing, as peers may; the case is then named as missing and left out.
    """

    name: str
    items: int
    call: Callable[[], Awaitable[int]] | Callable[[], int]
    needs: str | None = None

    @property
    def missing(self) -> bool:
        return self.needs is not None and find_spec(self.needs) is None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row to be: a case beside its base. `bar` is the largest ratio that passes, None if none is set."""

    group: str
    case: str
    base: str | None = None
    bar: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. What is held against the bar is the ratio, or the figure where there is none."""

    what: str
    figure: float | None
    unit: str
    base: str = ""
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    bar: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None without a bar, or where nothing could be measured."""
        reached = self.figure if self.ratio is None and not self.base else self.ratio
        return None if self.bar is None or reached is None else reached <= self.bar


def seconds(case: Case) -> float:
    """Wall-clock seconds of one call of `case`; refuses a call that did not do all of its items."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    if inspect.iscoroutinefunction(case.call):
        taken, done = asyncio.run(_timed_on_loop(case.call))
    else:
        start = perf_counter()
        done = case.call()
        taken = perf_counter() - start
    if done != case.items:
        raise AssertionError(f"{case.name}: {done} results for {case.items} items")
    return taken


async def _timed_on_loop(call: Callable[[], Awaitable[int]]) -> tuple[float, int]:
    start = perf_counter()
    done = await call()
    return perf_counter() - start, done


def interleave(cases: Sequence[Case], rounds: int) -> dict[str, list[float]]:
    """Microseconds per item of each case, one figure a round, the warm-up left out."""
    samples: dict[str, list[float]] = {case.name: [] for case in cases}
    for number in range(rounds + 1):
        print(f"round {number}/{rounds}" if number else "warm-up", end="\r", file=sys.stderr, flush=True)
        for case in cases:
            samples[case.name].append(seconds(case) / case.items * 1e6)
    gc.unfreeze()
    print(" " * 20, end="\r", file=sys.stderr, flush=True)
    return {name: taken[1:] for name, taken in samples.items()}


def compare(comparison: Comparison, samples: dict[str, list[float]]) -> Row:
    """The row of a comparison: the median time, and the median and middle half of the rounds' ratios.

    Ratios are taken within a round, not between medians: a slow spell then falls on both sides of it.
    """
    name, base, bar = comparison.case, comparison.base, comparison.bar
    own, other = samples.get(name), samples.get(base or "")
    figure = median(own) if own else None
    if not own or not other:
        return Row(name, figure, "µs/item", base or "", bar=bar)
    ratios = sorted(mine / theirs for mine, theirs in zip(own, other, strict=True))
    quarter = len(ratios) // 4
    return Row(
        name, figure, "µs/item", base or "", median(ratios), ratios[quarter], ratios[-1 - quarter], bar
    )


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| what | measured | base | ratio | half of the rounds | at most | |",
        "|---|---:|---|---:|---:|---:|---|",
    ]
    for row in rows:
        against_ratio = bool(row.base)
        measured = "not measured" if row.figure is None else f"{row.figure:.3g} {row.unit}"
        ratio = "–" if row.ratio is None else f"{row.ratio:.2f} ×"
        spread = "" if row.low is None else f"{row.low:.2f} – {row.high:.2f}"
        bar = "" if row.bar is None else f"{row.bar:g} {'×' if against_ratio else row.unit}"
        mark = {True: "✓", False: "✗ missed", None: "" if row.bar is None else "?"}[row.met]
        lines.append(f"| {row.what} | {measured} | {row.base} | {ratio} | {spread} | {bar} | {mark} |")
    return "\n".join(lines)


def environment() -> dict[str, str | int | float]:
    """Where the figures come from; a load average above 1 says that they are not worth quoting."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else -1.0,
    }
