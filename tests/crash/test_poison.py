"""An item that ends its process, again and again, does not keep the others from their results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.poison import CONCURRENCY, ITEMS, POISON

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")


@pytest.mark.parametrize(
    ("door", "how"),
    [
        ("amap", "SIGKILL"),
        ("stream", "SIGABRT"),
        ("batch", "exit"),
        ("threads", "SIGKILL"),
        ("in place", "exit"),
        ("nodes", "SIGKILL"),
    ],
)
def test_it_is_run_alone_and_then_set_aside(tmp_path: Path, door: str, how: str) -> None:
    """Three deaths among others, the fourth alone; then the run comes to its end, and so it stays."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.poison", str(tmp_path), door, how],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    starts = [[int(word) for word in line.split()] for line in done.stdout.splitlines()]
    assert [start[0] != 0 for start in starts] == [True] * 4 + [False] * 2, (starts, done.stderr[-3000:])
    calls = [start[1:] for start in starts]
    assert calls[3][-1] == POISON, "nothing began beside it"
    assert [POISON in called for called in calls] == [True] * 4 + [False] * 2
    assert calls[5] == []
    again = [sum(item in called for called in calls) for item in range(ITEMS)]
    assert all(1 <= count <= 5 for count in again)
    assert sum(again) <= ITEMS + 4 * 2 * CONCURRENCY
