"""How `asyncflow map` ends early: signals, a key that is refused, files that fail on the way."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asyncflow.errors import HTTPConnectionError
from asyncflow.events import LaneStopped
from asyncflow.llm import Completion
from asyncflow.llm.statistics import LLMStatistics
from asyncflow.policy.adaptive import START
from asyncflow.policy.limits import Limits
from asyncflow.testing import Asked, SimulatedProvider

Rows = Callable[..., Path]
Read = Callable[[Path], list[Any]]


class Held:
    """Answers nothing before `go`; `full` is set when as many are asked as the first limit lets through."""

    def __init__(self) -> None:
        self.full, self.go = threading.Event(), threading.Event()
        self.under_way = 0

    async def reply(self, asked: Asked) -> str:
        self.under_way += 1
        if self.under_way == START:
            self.full.set()
        while not self.go.is_set():
            await asyncio.sleep(0.01)
        return "ok"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no POSIX signals")
def test_nothing_answered_writes_nothing(child: Any, rows: Rows, tmp_path: Path) -> None:
    """Stopped before the first answer it writes no output, and says how to go on."""
    path = rows({"n": 1})
    hanging = threading.Event()

    async def reply(asked: Asked) -> str:
        hanging.set()
        await asyncio.Event().wait()
        return ""

    with SimulatedProvider(reply=reply, latency=0) as provider:
        running = child(
            "map", path, "-o", tmp_path / "out.jsonl", "--prompt", "{n}", "--model", "m",
            "--base-url", provider.base_url, "--grace", 0,
        )  # fmt: skip
        assert hanging.wait(30)
        running.send_signal(signal.SIGTERM)
        _, stderr = running.communicate(timeout=30)
    assert running.returncode == 143 and "nothing is written" in stderr
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no POSIX signals")
def test_ctrl_c_sends_nothing_more(child: Any, here: Any, rows: Rows, read: Read, tmp_path: Path) -> None:
    """Rows that wait for the limit are no calls in flight: they are not sent, but by the next command."""
    path = rows(*({"n": n} for n in range(60)))
    held = Held()
    with SimulatedProvider(reply=held.reply, latency=0) as provider:
        command = ("map", path, "-o", tmp_path / "out.jsonl", "--prompt", "{n}", "--model", "m")
        to = ("--base-url", provider.base_url)
        running = child(*command, *to)
        assert held.full.wait(30)
        running.send_signal(signal.SIGINT)
        heard = ""
        while "Once more cancels them" not in heard:
            heard += running.stderr.readline()
        held.go.set()
        stdout, stderr = running.communicate(timeout=30)
        assert provider.statistics().asked == START
        assert running.returncode == 130 and "stopped by SIGINT" in stderr, heard + stderr
        assert f"{START} ok, {60 - START} not asked" in stdout and f"{START}/60 done" in stderr
        assert len(read(tmp_path / "out.jsonl")) == START
        ran = here(*command, *to)
        assert ran.returncode == 0 and provider.statistics().asked == 60


def test_a_death_suspects_only_calls_in_flight(child: Any, here: Any, rows: Rows, tmp_path: Path) -> None:
    """Killed, a run had its calls in flight, and not the rows that waited for the limit."""
    path = rows(*({"n": n} for n in range(60)))
    held = Held()
    with SimulatedProvider(reply=held.reply, latency=0) as provider:
        command = ("map", path, "-o", tmp_path / "out.jsonl", "--prompt", "{n}", "--model", "m")
        to = ("--base-url", provider.base_url)
        running = child(*command, *to)
        assert held.full.wait(30)
        running.kill()
        running.communicate(timeout=30)
        held.go.set()
        ran = here(*command, *to)
    assert ran.returncode == 0 and f"{START} were in flight, {60 - START} not started" in ran.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there are no POSIX signals")
def test_ctrl_c_while_the_provider_is_down(child: Any, rows: Rows, tmp_path: Path) -> None:
    """Nothing is in flight then, so it ends at once, whatever the grace; no row has failed."""
    path = rows(*({"n": n} for n in range(60)))
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        running = child(
            "map", path, "-o", tmp_path / "out.jsonl", "--prompt", "{n}", "--model", "m", "--base-url", url,
            "--grace", 1e6, "--json",
        )  # fmt: skip
        told = ""
        while "nothing is sent for" not in told:
            told += running.stderr.readline()
        running.send_signal(signal.SIGINT)
        stdout, stderr = running.communicate(timeout=30)
    figures = json.loads(stdout)
    assert running.returncode == 130 and "nothing is written" in stderr
    assert (figures["failed"], figures["not_run"]) == (0, 60)
    assert 20 <= figures["requests"] < 20 + START
    assert (told + stderr).count("failures in a row") == 1  # said once, in the words of the command


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_refused_key_stops_it(here: Any, rows: Rows, tmp_path: Path, status: int) -> None:
    """After a few calls, not after all; exit code 3; no row has failed for it, so another key goes on."""
    rows(*({"n": n} for n in range(500)))
    command = ("map", "in.jsonl", "-o", "out.jsonl", "--prompt", "{n}", "--model", "m", "--concurrency", 4)
    with SimulatedProvider(latency=0, faults={status: 1.0}) as provider:
        ran = here(*command, "--base-url", provider.base_url)
        asked = provider.statistics().asked
    assert ran.returncode == 3 and "refuses the key" in ran.stderr and "This goes on" in ran.stderr
    assert asked < 40 and not (tmp_path / "out.jsonl").exists()
    assert re.search(r"map: 0/500 done, .*stopped after", ran.stderr) and "skipped" not in ran.stderr
    with SimulatedProvider(latency=0) as provider:
        ran = here(*command, "--base-url", provider.base_url)
    assert ran.returncode == 0 and "0 of 500 done and kept, 500 not started" in ran.stderr


def test_credit_that_ends_on_the_way(here: Any, rows: Rows, read: Read, tmp_path: Path) -> None:
    """Where the account runs dry, what was answered before is in the output; exit code 3."""
    rows(*({"n": n} for n in range(50)))
    script = [None, None, 402, *[402] * 50]
    with SimulatedProvider(reply=lambda asked: "ok", latency=0, script=script) as provider:
        ran = here(
            "map", "in.jsonl", "-o", "out.jsonl", "--prompt", "{n}", "--model", "m",
            "--base-url", provider.base_url, "--concurrency", 1,
        )  # fmt: skip
    assert ran.returncode == 3 and "2 rows of 50 are in out.jsonl" in ran.stderr
    assert [(row["n"], row["answer"]) for row in read(tmp_path / "out.jsonl")] == [(0, "ok"), (1, "ok")]


def test_a_provider_that_is_given_up_stops_it(
    here: Any, rows: Rows, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the client stops its lane, no row is burnt on it: what is answered is in the output; code 1."""
    rows(*({"n": n} for n in range(500)))
    error = HTTPConnectionError("nobody is there")

    class Dying:
        model, base_url = "m", "nowhere"
        calls = 0

        async def complete(self, prompt: str, **options: Any) -> Completion:
            self.calls += 1
            if self.calls <= 3:
                return Completion("ok")
            Limits.of_loop()._tell(LaneStopped("m", 0.0, error))
            raise error

        def statistics(self) -> LLMStatistics:
            return LLMStatistics()

    client = Dying()

    async def client_of(job: Any, stack: Any) -> Any:
        return client

    monkeypatch.setattr("asyncflow.cli.map.run.client_of", client_of)
    ran = here("map", "in.jsonl", "-o", "out.jsonl", "--prompt", "{n}", "--simulate", "--concurrency", 1)
    assert ran.returncode == 1 and "does not answer any more (nobody is there)" in ran.stderr
    assert client.calls == 4
    assert [row["answer"] for row in read(tmp_path / "out.jsonl")] == ["ok"] * 3


def test_a_full_disk(here: Any, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills ends it with the system's words and code 1; no output looks complete, all is kept."""
    rows(*({"n": n} for n in range(20)))

    def full(self: Any, row: Any) -> None:
        if row["answer"] is not None:  # the first row is tried without one
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("asyncflow.cli.tables.sinks.JSONLSink.write", full)
        ran = here("map", "in.jsonl", "-o", "out.jsonl", "--prompt", "{n}", "--simulate")
    assert ran.returncode == 1 and "No space left on device" in ran.stderr
    assert not (tmp_path / "out.jsonl").exists() and "20 done and kept" not in ran.stderr
    ran = here("map", "in.jsonl", "-o", "out.jsonl", "--prompt", "{n}", "--simulate")
    assert ran.returncode == 0 and "20 of 20 done and kept" in ran.stderr


def test_an_input_that_changes_on_the_way(here: Any, rows: Rows, read: Read, tmp_path: Path) -> None:
    """It is named, no output is written, the answers so far are kept, and the exit code is 1."""
    path = rows(*({"n": n} for n in range(30)))

    def reply(asked: Asked) -> str:
        if asked.prompt == "5":
            with path.open("a") as file:
                file.write("\n")
        return "ok"

    with SimulatedProvider(reply=reply, latency=0) as provider:
        command = ("map", "in.jsonl", "-o", "out.jsonl", "--prompt", "{n}", "--model", "m")
        to = ("--base-url", provider.base_url, "--concurrency", 2)
        ran = here(*command, *to)
        assert ran.returncode == 1 and "in.jsonl: it changed while it was read" in ran.stderr
        assert not (tmp_path / "out.jsonl").exists()
        ran = here(*command, *to)
        assert ran.returncode == 0 and provider.statistics().asked == 30
    assert len(read(tmp_path / "out.jsonl")) == 30
