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
        ("beside", "exit"),
        ("inside", "SIGSEGV"),
    ],
)
def test_it_is_run_alone_and_then_set_aside(tmp_path: Path, door: str, how: str) -> None:
    """Three deaths among others, the fourth alone; then the run comes to its end, and so it stays."""
    set_aside_after((4,), tmp_path, door, how)


def test_on_a_server_it_may_take_one_death_more(tmp_path: Path, postgres_url: str) -> None:
    """Marks are written some milliseconds behind, but for a run that goes on after a death: the first one of
    an item that dies at once may leave none."""
    set_aside_after((4, 5), tmp_path, "amap", "SIGKILL", postgres_url)


def set_aside_after(expected: tuple[int, ...], tmp_path: Path, door: str, how: str, *url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.poison", str(tmp_path), door, how, *url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    starts = [[int(word) for word in line.split()] for line in done.stdout.splitlines()]
    deaths = sum(start[0] != 0 for start in starts)
    assert deaths in expected, (starts, done.stderr[-3000:])
    assert [start[0] != 0 for start in starts] == [True] * deaths + [False] * 2, (starts, done.stderr[-3000:])
    calls = [start[1:] for start in starts]
    assert calls[deaths - 1][-1] == POISON, "nothing began beside it"
    assert [POISON in called for called in calls] == [True] * deaths + [False] * 2
    assert calls[deaths + 1] == []
    again = [sum(item in called for called in calls) for item in range(ITEMS)]
    assert all(1 <= count <= deaths + 1 for count in again)
    assert sum(again) <= ITEMS + deaths * 2 * CONCURRENCY
