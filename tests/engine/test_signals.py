"""Ctrl-C and SIGTERM on real processes: the first drains, the second cancels, the third leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

from asyncflow import stop_on_signals

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no POSIX signals")

#: Says "begun N" for each item; item 0 ends when a line comes on stdin, the others wait for ever.
PROGRAM = """
import asyncio, sys, threading
import anyio
from asyncflow import *

def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()

opened = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), opened.set()), daemon=True).start()

async def gate():
    while not opened.is_set():
        await anyio.sleep(0.01)

class Work(AsyncParallelBatchNode):
    concurrency = 3
    async def prep_async(self, shared):
        return range(100)
    async def exec_async(self, number):
        say("begun", number)
        try:
            await gate()
        except BaseException:
            say("cut", number)
            if len(sys.argv) > 2 and sys.argv[2] == "stubborn":
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1000)
            raise
        return number
"""

SYNC = """
class Plain(BatchNode):
    def prep(self, shared):
        return range(100)
    def exec(self, number):
        say("begun", number)
        say("begun", number)
        say("begun", number)
        opened.wait()
        return number
"""


class Program:
    """A running program; `says` waits for a line that begins so, and returns all until then."""

    def __init__(self, directory: Path, body: str, *arguments: str) -> None:
        path = directory / "program.py"
        path.write_text(PROGRAM + SYNC + textwrap.dedent(body), encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, str(path), str(directory / "runs.db"), *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def says(self, start: str, times: int = 1) -> list[str]:
        assert self.process.stdout is not None
        lines: list[str] = []
        while sum(line.startswith(start) for line in lines) < times:
            line = self.process.stdout.readline()
            assert line, (lines, self.process.communicate(timeout=20))
            lines.append(line.strip())
        return lines

    def tells(self, start: str) -> None:
        """The same on stderr."""
        assert self.process.stderr is not None
        while not (line := self.process.stderr.readline()).startswith(start):
            assert line

    def end(self, text: str = "") -> tuple[int, str, str]:
        out, errors = self.process.communicate(text, timeout=30)
        code = self.process.returncode
        return 128 - code if code < 0 else code, out, errors


RUN = """
run_sync(AsyncFlow(start=Work()), {}, store=sys.argv[1], run_id="r")
"""
PLAIN = """
run_sync(Flow(start=Plain()), {}, store=sys.argv[1], run_id="r")
"""
ON_TRIO = """
import trio
async def main():
    with stop_on_signals() as stop:
        await run(AsyncFlow(start=Work()), {}, store=sys.argv[1], run_id="r", stop=stop)
try:
    trio.run(main)
except BaseException as error:
    say(type(error).__name__, error)
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_lets_what_is_in_flight_end_and_records_it(tmp_path: Path, number: signal.Signals) -> None:
    """Code 130 or 143; the command that goes on is on stderr; resumed, those are not run again."""
    program = Program(tmp_path, RUN)
    program.says("begun", 3)
    program.process.send_signal(number)
    program.tells("asyncflow: SIG")
    code, out, errors = program.end("open\n")
    assert code == 128 + number, errors
    assert "begun" not in out and "cut" not in out
    assert "run r is kept in" in errors and "to go on with it: python" in errors
    again = Program(tmp_path, RUN)
    code, out, errors = again.end("open\n")
    assert code == 0 and out.count("begun") == 97, errors


def test_the_second_cancels_and_the_third_leaves(tmp_path: Path) -> None:
    """The second cuts off what is in flight; where that does not end, the third ends the process."""
    program = Program(tmp_path, RUN)
    program.says("begun", 3)
    for _ in range(2):
        program.process.send_signal(signal.SIGINT)
        program.tells("asyncflow: SIGINT")
    program.says("cut", 3)
    code, _, errors = program.end()
    assert code == 130 and "to go on with it" in errors
    stubborn = Program(tmp_path, RUN, "stubborn")
    stubborn.says("begun", 3)
    for _ in range(2):
        stubborn.process.send_signal(signal.SIGTERM)
        stubborn.tells("asyncflow: SIGTERM")
    stubborn.says("cut", 3)
    stubborn.process.send_signal(signal.SIGTERM)
    code, _, errors = stubborn.end()
    assert code == 143 and "leaving" in errors and "to go on" not in errors


def test_a_plain_flow_that_holds_the_loop_stops_after_its_item(tmp_path: Path) -> None:
    """Its item ends and is recorded; a second signal breaks into it."""
    program = Program(tmp_path, PLAIN)
    program.says("begun", 3)
    program.process.send_signal(signal.SIGINT)
    program.tells("asyncflow: SIGINT")
    code, out, errors = program.end("open\n")
    assert code == 130 and "begun" not in out and "to go on with it" in errors
    again = Program(tmp_path, PLAIN)
    assert again.says("begun", 1) == ["begun 1"]
    for _ in range(2):
        again.process.send_signal(signal.SIGTERM)
        again.tells("asyncflow: SIGTERM")
    code, _, errors = again.end()
    assert code == 143, errors


def test_on_trio(tmp_path: Path) -> None:
    """`stop_on_signals` inside the program's own loop."""
    program = Program(tmp_path, ON_TRIO)
    program.says("begun", 3)
    program.process.send_signal(signal.SIGINT)
    program.tells("asyncflow: SIGINT")
    code, out, errors = program.end("open\n")
    assert code == 130, errors
    [line] = out.splitlines()
    assert line.startswith("RunStoppedError AsyncFlow was stopped (SIGINT): 3 items done, 0 given up")


def test_without_a_store_ctrl_c_cancels(tmp_path: Path) -> None:
    """There is nothing to keep, so nothing is waited for."""
    program = Program(tmp_path, "run_sync(AsyncFlow(start=Work()), {})")
    program.says("begun", 3)
    program.process.send_signal(signal.SIGINT)
    program.says("cut", 3)
    code, _, errors = program.end()
    assert code == 130 and "asyncflow:" not in errors.replace("asyncflow: Work", "")


def test_a_program_s_own_handler_stays_and_what_was_set_is_taken_back() -> None:
    """Only handlers that nobody has set are replaced, for the block."""

    def own(number: int, frame: Any) -> None:
        heard.append(number)

    heard: list[int] = []
    old = signal.signal(signal.SIGTERM, own)
    try:
        with stop_on_signals(told=lambda name, count: None) as stop:
            assert signal.getsignal(signal.SIGTERM) is own
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
            signal.raise_signal(signal.SIGINT)
            assert stop.reason == "SIGINT"
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, old)


def test_of_two_blocks_the_inner_one_hears() -> None:
    """And afterwards the outer one again: a run_sync in a program that has a block of its own."""

    def told(name: str, count: int) -> None:
        pass

    with stop_on_signals(told=told) as outer:
        with stop_on_signals(told=told) as inner:
            signal.raise_signal(signal.SIGINT)
        assert inner.asked and not outer.asked
        signal.raise_signal(signal.SIGTERM)
        assert outer.reason == "SIGTERM"


def test_beside_the_main_thread_nothing_is_installed() -> None:
    """Signals are heard there alone; the `Stop` is given all the same."""
    found: list[Any] = []

    def body() -> None:
        with stop_on_signals() as stop:
            found.append((stop.asked, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert found == [(False, signal.default_int_handler)]


def test_where_the_process_must_not_be_left_the_third_is_as_before() -> None:
    """In a notebook: KeyboardInterrupt."""
    with pytest.raises(KeyboardInterrupt):
        with stop_on_signals(leave=False, told=lambda name, count: None) as stop:
            stop.listen(_Now(), lambda: None)  # type: ignore[arg-type]
            for _ in range(3):
                signal.raise_signal(signal.SIGINT)
    assert stop.cancelled


class _Now:
    """A host that calls at once."""

    def from_thread(self, callback: Any) -> None:
        callback()
