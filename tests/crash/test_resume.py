"""A program that is killed with SIGKILL, over and over, and goes on each time."""

from __future__ import annotations

import collections
import os
import subprocess
import sys
from pathlib import Path

import pytest

from asyncflow.durability import open_run
from asyncflow.errors import StoreLockedError

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import asyncio, os, sys
from asyncflow import AsyncFlow, AsyncParallelBatchNode, run_sync

class Work(AsyncParallelBatchNode):
    concurrency = 8
    async def prep_async(self, shared):
        return range(60)
    async def exec_async(self, number):
        os.write(log, f"call {number}\\n".encode())
        await asyncio.sleep(0)
        if number == deadly:
            sys.stdout.close()
            os.kill(os.getpid(), 9)
        return number * number
    def post_item(self, shared, item, result):
        os.write(log, f"seen {item}\\n".encode())
        shared["sum"] = shared.get("sum", 0) + result

log = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
deadly = int(sys.argv[3])
result = run_sync(AsyncFlow(start=Work()), {}, store=sys.argv[1], run_id="r")
print(result.shared["sum"])
"""


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "runs.db")
    url: str = request.getfixturevalue("postgres_url")
    return url


def start(tmp_path: Path, store: str, deadly: int) -> subprocess.CompletedProcess[str]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(program), store, str(tmp_path / "log"), str(deadly)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_and_resumed_until_done(tmp_path: Path, store: str) -> None:
    """No result that was seen is paid for again; what is called again was in flight or uncommitted."""
    log = tmp_path / "log"
    seen_before: set[str] = set()
    for deadly in (5, 20, 21, 44, -1):
        log.write_text("")
        done = start(tmp_path, store, deadly)
        lines = log.read_text().split("\n")
        called = {line.removeprefix("call ") for line in lines if line.startswith("call ")}
        assert not called & seen_before, "a result that was seen was paid for again"
        seen_before |= {line.removeprefix("seen ") for line in lines if line.startswith("seen ")}
        if deadly >= 0:
            assert done.returncode == -9, done.stderr
    assert done.stdout.strip() == str(sum(n * n for n in range(60)))
    counted = collections.Counter(line for line in lines if line.startswith("seen "))
    assert len(counted) == 60 and set(counted.values()) == {1}


def test_a_second_process_is_told_who_holds_the_run(tmp_path: Path, store: str) -> None:
    """While this process runs, another one on the same run ends with the holder's pid."""
    with open_run(store, "r"):
        answer = start(tmp_path, store, -1)
    assert answer.returncode == 1
    assert StoreLockedError.__name__ in answer.stderr and str(os.getpid()) in answer.stderr
