"""The engine benchmark runs and says what it should. Counts are tiny and no figure is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--items", "50", "--rounds", "1"]


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A run with tiny counts, from the checkout; its standard error shows where the run fails."""
    command = [sys.executable, *arguments, *TINY]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert run.returncode == 0, run.stderr
    return run


def bars(*groups: str) -> list[dict[str, Any]]:
    """The rows that have a bar, each marked by it."""
    rows = json.loads(benchmark("-m", "tests.benchmarks.engine", "--json", "--only", *groups).stdout)["rows"]
    barred = [row for row in rows if row["bar"] is not None]
    for row in barred:
        reached = row["ratio"] if row["base"] else row["figure"]
        assert row["met"] is (reached <= row["bar"]), row
    return barred


def test_amap_stream_and_the_import_are_held_against_their_bars() -> None:
    """Each has a figure, its own base and a mark."""
    assert [(row["what"], row["base"], row["bar"]) for row in bars("amap", "stream", "import")] == [
        ("amap", "bare pool", 2.0),
        ("amap, retry and timeout set", "bare pool", 4.0),
        ("stream, unordered", "bare pool", 3.5),
        ("stream, ordered", "bare pool", 4.0),
        ("import asyncflow", "", 150.0),
    ]


def test_nodes_flows_and_memory_are_held_against_their_bars() -> None:
    """Graph programs are held against PocketFlow's time, memory against that of fewer items."""
    rows = bars("node", "flow", "nested", "plain", "memory")
    assert [(row["what"], row["base"], row["bar"]) for row in rows if row["unit"] == "µs/item"] == [
        ("AsyncParallelBatchNode", "bare pool", 2.2),
        ("AsyncParallelBatchNode", "PocketFlow AsyncParallelBatchNode", 0.2),
        ("AsyncParallelBatchFlow of one node", "PocketFlow AsyncParallelBatchFlow of one node", 0.3),
        (
            "parallel flow of parallel nodes of four items",
            "PocketFlow parallel flow of parallel nodes of four items",
            0.7,
        ),
        ("Flow, a step", "PocketFlow Flow, a step", 1.5),
        ("BatchNode, an item", "PocketFlow BatchNode, an item", 2.5),
    ]
    assert [row["bar"] for row in rows if row["unit"] == "MiB"] == [10.0, 10.0]


def test_a_missing_peer_is_named_and_the_rest_is_measured() -> None:
    """Without aiometer the run goes on, the table leaves its row empty, and standard error says so."""
    program = (
        "import sys; sys.modules['aiometer'] = None; "
        "from tests.benchmarks.engine import main; main(sys.argv[1:])"
    )
    run = benchmark("-c", program, "--only", "peers")
    assert "MISSING: aiometer" in run.stderr
    assert "| aiometer.amap | not measured | bare pool | – |" in run.stdout
    assert "| PocketFlow AsyncParallelBatchNode | not" not in run.stdout
