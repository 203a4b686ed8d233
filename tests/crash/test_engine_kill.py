"""Whole programs killed at any moment: what was shown is never paid for again, and the end is right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOORS = ["stream", "nodes", "threads"]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")


def kill_loop(directory: Path, door: str, kills: int, seed: int, point: str | None = None) -> int:
    """Run the loop in a process without threads, so that it may fork. Returns how many children died."""
    command = [sys.executable, "-m", "tests.crash.engine_kill", str(directory), door, str(kills), str(seed)]
    run = subprocess.run(
        [*command, *([point] if point else [])], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, f"{door}, {point or 'random'}, seed {seed}:\n{run.stderr[-4000:]}"
    return int(run.stdout.split("deaths=")[1].split()[0])


@pytest.mark.parametrize("door", DOORS)
def test_killed_at_random_moments(tmp_path: Path, door: str) -> None:
    """With retries, items that fail, and items that become suspects on the way."""
    assert kill_loop(tmp_path, door, 10, seed=1) > 3


@pytest.mark.parametrize("point", ["before commit", "after commit", "inside group", "during resume, by key"])
def test_killed_at_named_points(tmp_path: Path, point: str) -> None:
    """Four times in a row."""
    assert kill_loop(tmp_path, "nodes", 4, seed=2, point=point) >= 1


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("door", DOORS)
def test_killed_two_hundred_times(tmp_path: Path, door: str, seed: int) -> None:
    """The long form."""
    assert kill_loop(tmp_path, door, 20, seed=100 + seed) > 3
