"""`asyncflow run file.py:flow`: finding the flow, going on with its run, what it says and returns."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import COMMAND, Here, environment

FLOWS = """
import asyncio, os
from asyncflow import AsyncFlow, AsyncNode, AsyncParallelBatchNode
from helper import told

class Square(AsyncParallelBatchNode):
    concurrency = 4
    on_error = "continue"

    async def prep_async(self, shared):
        return range(shared.get("count", 12))

    async def exec_async(self, number):
        told(f"call {number}")
        if number == 5 and os.environ.get("FIVE") != "good":
            raise ValueError("unlucky")
        while number >= int(os.environ.get("HANG", "1000")) and not os.path.exists("go"):
            await asyncio.sleep(0.005)
        return number * number

    async def post_async(self, shared, prep_res, results):
        shared["sum"] = sum(one for one in results if isinstance(one, int))

class Broken(AsyncNode):
    async def exec_async(self, prep_res):
        raise RuntimeError("oops")

flow = AsyncFlow(start=Square())
broken = AsyncFlow(start=Broken())
empty = AsyncFlow()
number = 3

def make():
    return flow
"""
HELPER = """
def told(text):
    with open("log", "a") as file:
        file.write(text + "\\n")
"""


@pytest.fixture(autouse=True)
def flows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The program, in a folder of its own; what it imports is forgotten afterwards."""
    (tmp_path / "flows.py").write_text(FLOWS)
    (tmp_path / "helper.py").write_text(HELPER)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delenv("FIVE", raising=False)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def calls(folder: Path) -> list[int]:
    """The items that were called since the last question."""
    log = folder / "log"
    found = [int(line.split()[1]) for line in log.read_text().splitlines()] if log.exists() else []
    log.write_text("")
    return sorted(found)


def test_the_same_command_goes_on(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so first; results are read back, only what failed runs; exit code 1 until nothing fails."""
    ran = here("run", "flows.py:flow")
    assert ran.returncode == 1 and "11 items done, 1 failed" in ran.stdout
    assert calls(tmp_path) == list(range(12)) and "asyncflow run flows.py:flow" in ran.stderr
    monkeypatch.setenv("FIVE", "good")
    ran = here("run", "flows.py:flow", "--json")
    assert ran.returncode == 0 and calls(tmp_path) == [5]
    assert ran.stderr.startswith("Going on with run") and "11 done and kept, 1 failed" in ran.stderr
    figures = json.loads(ran.stdout)
    assert figures["shared"] == {"sum": 506} and figures["statistics"]["recalled"] == 11
    assert (figures["status"], figures["error"], figures["store"]) == ("finished", None, "runs.db")
    assert "flows-flow" in figures["run"]


def test_another_input_is_another_run(here: Here, tmp_path: Path) -> None:
    """A run is known by file, flow and --shared, in whatever form; --run-id goes on with one all the same."""
    (tmp_path / "shared.json").write_text('{"count": 3}\n')
    first = json.loads(here("run", "flows.py:flow", "--json", "--shared", '{"count":3}').stdout)["run"]
    again = json.loads(here("run", tmp_path / "flows.py:flow", "--json", "--shared", "shared.json").stdout)
    assert again["run"] == first and calls(tmp_path) == [0, 1, 2]
    other = json.loads(here("run", "flows.py:flow", "--json", "--shared", '{"count": 4}').stdout)["run"]
    assert other != first and calls(tmp_path) == [0, 1, 2, 3]
    there = here("run", "flows.py:flow", "--json", "--shared", '{"count": 5}', "--run-id", "@last")
    assert json.loads(there.stdout)["run"] == other and calls(tmp_path) == [4]


def test_a_new_run_and_a_named_one(here: Here, tmp_path: Path) -> None:
    """--new begins again and is then the one that goes on; --run-id may name a run that is not there yet."""
    ids = [
        json.loads(here("run", "flows.py:flow", "--json", "--shared", '{"count":2}', *more).stdout)["run"]
        for more in ((), ("--new",), (), ("--run-id", "mine"), ("--run-id", "mine"))
    ]
    assert ids[0] != ids[1] == ids[2] and ids[3:] == ["mine", "mine"]
    assert calls(tmp_path) == [0, 0, 0, 1, 1, 1]


def test_failed_items(here: Here, tmp_path: Path) -> None:
    """--retry-failed says so where nothing has failed; --keep-failed runs no failed item again."""
    assert here("run", "flows.py:flow").returncode == 1
    calls(tmp_path)
    assert here("run", "flows.py:flow", "--keep-failed").returncode == 1 and calls(tmp_path) == []
    assert here("run", "flows.py:flow", "--retry-failed").returncode == 1 and calls(tmp_path) == [5]
    good = ("run", "flows.py:flow", "--shared", '{"count":2}')
    assert here(*good, "--retry-failed").returncode == 2
    assert here(*good).returncode == 0
    ran = here(*good, "--retry-failed")
    assert ran.returncode == 0 and "there is nothing to retry" in ran.stderr
    assert calls(tmp_path) == [0, 1]


@pytest.mark.parametrize(("choice", "called", "total"), [("keep", [], 1), ("drop", [0, 1], 2)])
def test_a_changed_program(here: Here, tmp_path: Path, choice: str, called: list[int], total: int) -> None:
    """It is refused with what has changed and exit code 3; told so, results are kept or dropped."""
    command = ("run", "flows.py:flow", "--shared", '{"count":2}')
    assert here(*command).returncode == 0
    (tmp_path / "flows.py").write_text(FLOWS.replace("number * number", "number + number"))
    calls(tmp_path)
    ran = here(*command)
    assert ran.returncode == 3 and "AsyncFlow/Square: the code of exec has changed" in ran.stderr
    assert "--changed keep" in ran.stderr and calls(tmp_path) == []
    ran = here(*command, "--changed", choice, "--json")
    assert json.loads(ran.stdout)["shared"]["sum"] == total and calls(tmp_path) == called


def test_a_flow_that_fails(here: Here, tmp_path: Path) -> None:
    """The error, where in the user's file, which node, and the command that goes on; exit code 1."""
    ran = here("run", "flows.py:broken", "--json")
    assert ran.returncode == 1 and "RuntimeError: oops (at flows.py:26 in exec_async)" in ran.stderr
    assert "Broken" in ran.stderr and "asyncflow run flows.py:broken" in ran.stderr
    figures = json.loads(ran.stdout)
    assert figures["status"] == "failed" and figures["error"] == {"kind": "RuntimeError", "message": "oops"}


def test_what_the_program_prints(here: Here, tmp_path: Path) -> None:
    """It is on standard output, and with --json on standard error, so that the JSON stands alone."""
    with (tmp_path / "helper.py").open("a") as file:
        file.write("    print('told')\nprint('imported')\n")
    command = ("run", "flows.py:flow", "--shared", '{"count":1}', "--new")
    ran = here(*command)
    assert "imported\n" in ran.stdout and "told\n" in ran.stdout
    ran = here(*command, "--json")
    assert json.loads(ran.stdout)["status"] == "finished" and "told\n" in ran.stderr


WRONG = [
    (("none.py:flow",), "none.py: there is no such file"),
    ((".",), "it is a folder"),
    (("flows.py",), "which flow? it has: flows.py:flow, flows.py:broken, flows.py:empty"),
    (("flows.py:nothing",), "it has no 'nothing'; it has: flows.py:flow"),
    (("helper.py:flow",), "there is no flow in it"),
    (("flows.py:Square",), "is a class; name an instance of it, such as flow = Square()"),
    (("flows.py:make",), "is a function"),
    (("flows.py:number",), "is of type int"),
    (("flows.py:empty",), "no start node"),
    (("raises.py:flow",), "importing it raised KeyError: 'a' (at raises.py:2 in <module>)"),
    (("exits.py:flow",), '`if __name__ == "__main__":`'),
    (("broken.py:flow",), "broken.py:1: not Python"),
    (("flows.py:flow", "--shared", "none.json"), "--shared none.json: No such file"),
    (("flows.py:flow", "--shared", "{a"), "--shared: not JSON"),
    (("flows.py:flow", "--shared", "list.json"), "an object is needed"),
    (("flows.py:flow", "--store", "nowhere/runs.db"), "there is no directory"),
    (("flows.py:flow", "--run-id", "@last"), "there is no store at runs.db"),
    (("flows.py:flow", "--changed", "perhaps"), "refuse, keep or drop"),
    (("flows.py:flow", "--new", "--run-id", "a"), "leave one of them out"),
    (("flows.py:flow", "--new", "--retry-failed"), "the contrary of --new"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "said"), WRONG, ids=[" ".join(row[0]) for row in WRONG])
def test_wrong_usage(here: Here, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    """Told in a line or two; nothing is run; exit code 2."""
    (tmp_path / "raises.py").write_text("numbers = {}\nnumbers['a']\n")
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "broken.py").write_text("def (\n")
    (tmp_path / "list.json").write_text("[]")
    ran = here("run", *arguments)
    assert ran.returncode == 2 and said in ran.stderr and ran.stdout == ""
    assert calls(tmp_path) == []


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """Starts the command as a process in the folder; none is left behind."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **more: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, "run", "flows.py:flow", *arguments],
            cwd=tmp_path,
            env=environment(**more),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        with process:
            process.kill()


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no POSIX signals")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_ended_on_the_way(start: Any, tmp_path: Path, number: int, code: int) -> None:
    """A signal lets what is in flight end; after it, and after kill -9, the same command goes on."""
    log = tmp_path / "log"
    running = start(FIVE="good", HANG="4")
    until(lambda: log.exists() and len(log.read_text().splitlines()) == 8, running)
    running.send_signal(number)
    if number != signal.SIGKILL:
        heard = ""
        while "no more items are started" not in heard:
            heard += running.stderr.readline()
        (tmp_path / "go").touch()
    _, stderr = running.communicate(timeout=30)
    assert running.returncode == code and "Traceback" not in stderr
    assert number == signal.SIGKILL or "This goes on:\n  asyncflow run flows.py:flow" in stderr
    (tmp_path / "go").touch()
    assert calls(tmp_path) == list(range(8))
    again = start(FIVE="good")
    stdout, stderr = again.communicate(timeout=30)
    assert again.returncode == 0 and "Going on with run" in stderr and "12 items done" in stdout
    called = calls(tmp_path)
    if number == signal.SIGKILL:  # the four that were in flight, and any that was not yet committed
        assert set(called) >= set(range(4, 12))
    else:
        assert called == list(range(8, 12))
