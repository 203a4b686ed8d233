"""A sales file too large to hold, read in chunks: totals of a million rows in flat memory.

Shows a `BatchNode` over a lazy source. `prep` returns the iterator of `pandas.read_csv(chunksize=…)`, the
node pulls a chunk when it has a free place, and the same node runs in turn (`concurrency=1`) or on threads.
The action "show_stats" leads to the node that prints. At the end pandas reads the whole file at once, and
every figure has to be the same: counts exactly, money to the cent.

    python examples/csv_in_chunks.py [rows]         (1,000,000 by default)

Money is summed in whole cents, because a sum of floats depends on how the file was cut.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from asyncflow import BatchNode, Flow, Node

REGIONS = np.array(["north", "south", "east", "west"])


def make_sales(path: Path, rows: int, *, seed: int = 0, block: int = 50_000) -> None:
    """Write `rows` invented sales, a block at a time. The same seed gives the same file."""
    rng = np.random.default_rng(seed)
    for first in range(0, rows, block):
        count = min(block, rows - first)
        sales = pd.DataFrame(
            {
                "order": np.arange(first, first + count),
                "region": REGIONS[rng.integers(0, len(REGIONS), count)],
                "quantity": rng.integers(1, 10, count),
                "amount": rng.integers(1, 50_000, count) / 100,
            }
        )
        sales.to_csv(path, mode="a" if first else "w", header=not first, index=False, float_format="%.2f")


def statistics_of(sales: pd.DataFrame) -> dict[str, Any]:
    """What is asked of any table of sales, a chunk or the whole; cents are whole numbers."""
    cents = (sales["amount"] * 100).round().astype("int64")
    by_region = cents.groupby(sales["region"]).sum()
    return {
        "transactions": len(sales),
        "pieces": int(sales["quantity"].sum()),
        "cents": int(cents.sum()),
        "largest_cents": int(cents.max()),
        "cents_by_region": {str(region): int(total) for region, total in sorted(by_region.items())},
    }


class CSVProcessor(BatchNode):
    """`shared`: reads "input_file", writes "statistics"."""

    def __init__(self, chunk_size: int = 1000, **settings: Any) -> None:
        super().__init__(**settings)
        self.chunk_size = chunk_size

    def prep(self, shared: dict[str, Any]) -> Iterator[pd.DataFrame]:
        return pd.read_csv(shared["input_file"], chunksize=self.chunk_size)

    def exec(self, chunk: pd.DataFrame) -> dict[str, Any]:
        return statistics_of(chunk)

    def post(self, shared: dict[str, Any], prep_res: Any, parts: list[dict[str, Any]]) -> str:
        regions = sorted({region for part in parts for region in part["cents_by_region"]})
        shared["statistics"] = {
            "transactions": sum(part["transactions"] for part in parts),
            "pieces": sum(part["pieces"] for part in parts),
            "cents": sum(part["cents"] for part in parts),
            "largest_cents": max(part["largest_cents"] for part in parts),
            "cents_by_region": {
                region: sum(part["cents_by_region"].get(region, 0) for part in parts) for region in regions
            },
        }
        shared["chunks"] = len(parts)
        return "show_stats"


class ShowStats(Node):
    def prep(self, shared: dict[str, Any]) -> dict[str, Any]:
        return shared["statistics"]

    def exec(self, found: dict[str, Any]) -> str:
        regions = ", ".join(f"{name} {total / 100:,.2f}" for name, total in found["cents_by_region"].items())
        total = found["cents"] / 100
        return (
            f"  {found['transactions']:,} sales of {found['pieces']:,} pieces, {total:,.2f} in all, "
            f"{total / found['transactions']:.2f} on average\n  {regions}"
        )

    def post(self, shared: dict[str, Any], prep_res: dict[str, Any], text: str) -> None:
        print(text)


def statistics_flow(chunk_size: int, concurrency: int) -> Flow:
    process = CSVProcessor(chunk_size, concurrency=concurrency)
    process - "show_stats" >> ShowStats()
    return Flow(start=process)


def peak_memory_mib() -> float:
    """The most memory that this process has held so far, or NaN where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def main(rows: int = 1_000_000, chunk_size: int = 20_000, threads: int = 2) -> dict[str, Any]:
    figures: dict[str, Any] = {"rows": rows}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large_sales_data.csv"
        make_sales(path, rows)
        before = peak_memory_mib()
        print(f"{path.name}: {rows:,} rows, {path.stat().st_size / 2**20:.1f} MiB")
        for concurrency in (1, threads):
            shared: dict[str, Any] = {"input_file": path}
            began = time.perf_counter()
            statistics_flow(chunk_size, concurrency).run(shared)
            seconds = time.perf_counter() - began
            figures[f"seconds_{concurrency}"] = seconds
            figures[f"statistics_{concurrency}"] = shared["statistics"]
            print(f"  {shared['chunks']} chunks, concurrency={concurrency}: {seconds:.2f} s")
        chunked = peak_memory_mib()
        figures["whole"] = statistics_of(pd.read_csv(path))
    whole = peak_memory_mib()
    print(f"peak memory: {before:.0f} MiB before, {chunked:.0f} MiB in chunks, {whole:.0f} MiB read whole")
    equal = all(figures[f"statistics_{count}"] == figures["whole"] for count in (1, threads))
    print(f"equal to pandas on the whole file: {'yes' if equal else 'NO'}")
    print("Reading the file is serial and takes most of the time, so threads gain little or nothing here.")
    return {**figures, "equal": equal, "mib_before": before, "mib_chunked": chunked, "mib_whole": whole}


if __name__ == "__main__":
    sys.exit(0 if main(*map(int, sys.argv[1:]))["equal"] else 1)
