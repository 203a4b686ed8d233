"""How `asyncflow map` ends early: signals, a key that is refused, files that fail on the way."""

from __future__ import annotations

import asyncio
import json
import signal
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
from asyncflow.policy.limits import Limits
from asyncflow.testing import Asked, SimulatedProvider

Rows = Callable[..., Path]
Read = Callable[[Path], list[Any]]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no POSIX signals")
@pytest.mark.parametrize(
    ("suffix", "number", "code"), [("jsonl", signal.SIGINT, 130), ("parquet", signal.SIGTERM, 143)]
)
def test_a_signal_keeps_what_was_paid(
    child: Any, rows: Rows, read: Read, tmp_path: Path, suffix: str, number: int, code: int
) -> None:
    """Every answer that has come is in the .part as a line of JSON, whatever the output; code 130 or 143."""
    path = rows(*({"n": n} for n in range(40)))
    hanging, answered = threading.Event(), threading.Semaphore(0)

    async def reply(asked: Asked) -> str:
        if asked.prompt not in ("0", "2", "3"):
            hanging.set()
            await asyncio.Event().wait()
        answered.release()
        return "ok"

    with SimulatedProvider(reply=reply, latency=0) as provider:
        out = tmp_path / f"out.{suffix}"
        running = child(
            "map", path, "-o", out, "--prompt", "{n}", "--model", "m", "--base-url", provider.base_url,
            "--concurrency", 4, "--json",
        )  # fmt: skip
        assert hanging.wait(30)
        for _ in range(3):
            assert answered.acquire(timeout=30)
        while (
            provider.statistics().asked < 7
        ):  # so the three answers have been read: others took their places
            assert running.poll() is None
            hanging.clear()
            hanging.wait(1)
        running.send_signal(number)
        stdout, stderr = running.communicate(timeout=30)
    assert running.returncode == code, stderr
    assert not out.exists() and "Traceback" not in stderr
    part = tmp_path / f"out.{suffix}.part"
    assert sorted((row["n"], row["answer"]) for row in read(part)) == [(0, "ok"), (2, "ok"), (3, "ok")]
    assert f"3 rows written to {part}" in stderr and f"stopped by {signal.Signals(number).name}" in stderr
    figures = json.loads(stdout)
    assert (figures["ok"], figures["not_run"], figures["complete"]) == (3, 37, False)
    assert figures["stopped"] == signal.Signals(number).name and figures["output"] == str(part)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no POSIX signals")
def test_a_kill_leaves_whole_lines(child: Any, rows: Rows, tmp_path: Path) -> None:
    """After kill -9 there is no output, and the .part has the rows that were answered, as whole lines."""
    path = rows(*({"n": n} for n in range(20)))
    hanging = threading.Event()

    async def reply(asked: Asked) -> str:
        if asked.prompt == "9":
            hanging.set()
            await asyncio.Event().wait()
        return "ok"

    with SimulatedProvider(reply=reply, latency=0) as provider:
        running = child(
            "map", path, "-o", tmp_path / "out.jsonl", "--prompt", "{n}", "--model", "m",
            "--base-url", provider.base_url, "--concurrency", 1,
        )  # fmt: skip
        assert hanging.wait(30)
        running.kill()
        running.communicate(timeout=30)
    assert not (tmp_path / "out.jsonl").exists()
    lines = (tmp_path / "out.jsonl.part").read_text().splitlines(keepends=True)
    assert all(line.endswith("}\n") for line in lines)
    # The ninth row's answer may be on its way into the file when the tenth is asked.
    assert [json.loads(line)["n"] for line in lines][:8] == list(range(8))


def test_nothing_paid_leaves_nothing(child: Any, rows: Rows, tmp_path: Path) -> None:
    """Stopped before the first answer it leaves no .part, so the same command can be given again."""
    path = rows({"n": 1})
    hanging = threading.Event()

    async def reply(asked: Asked) -> str:
        hanging.set()
        await asyncio.Event().wait()
        return ""

    with SimulatedProvider(reply=reply, latency=0) as provider:
        running = child(
            "map", path, "-o", tmp_path / "out.jsonl", "--prompt", "{n}", "--model", "m",
            "--base-url", provider.base_url,
        )  # fmt: skip
        assert hanging.wait(30)
        running.send_signal(signal.SIGTERM)
        _, stderr = running.communicate(timeout=30)
    assert running.returncode == 143 and "nothing is written" in stderr
    assert [one.name for one in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_refused_key_stops_it(here: Any, rows: Rows, tmp_path: Path, status: int) -> None:
    """A key that is refused stops the run after a few calls, not after all; exit code 3."""
    rows(*({"n": n} for n in range(500)))
    with SimulatedProvider(latency=0, faults={status: 1.0}) as provider:
        ran = here(
            "map", "in.jsonl", "-o", "out.jsonl", "--prompt", "{n}", "--model", "m",
            "--base-url", provider.base_url, "--concurrency", 4,
        )  # fmt: skip
        asked = provider.statistics().asked
    assert ran.returncode == 3 and "refuses the key" in ran.stderr
    assert asked < 40 and [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_credit_that_ends_on_the_way(here: Any, rows: Rows, read: Read, tmp_path: Path) -> None:
    """Where the account runs dry, what was answered before is in the .part; exit code 3."""
    rows(*({"n": n} for n in range(50)))
    script = [None, None, 402, *[402] * 50]
    with SimulatedProvider(reply=lambda asked: "ok", latency=0, script=script) as provider:
        ran = here(
            "map", "in.jsonl", "-o", "out.jsonl", "--prompt", "{n}", "--model", "m",
            "--base-url", provider.base_url, "--concurrency", 1,
        )  # fmt: skip
    assert ran.returncode == 3
    assert [row["answer"] for row in read(tmp_path / "out.jsonl.part")][:2] == ["ok", "ok"]
    assert not (tmp_path / "out.jsonl").exists()


def test_a_provider_that_is_given_up_stops_it(
    here: Any, rows: Rows, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the client stops its lane, no row is burnt on it: what is answered stays in the .part; code 1."""
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
    assert client.calls == 4 and not (tmp_path / "out.jsonl").exists()
    assert [row["answer"] for row in read(tmp_path / "out.jsonl.part")][:3] == ["ok"] * 3


def test_a_full_disk(here: Any, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills ends the run with the system's words and exit code 1; no output looks complete."""
    rows(*({"n": n} for n in range(20)))

    def full(self: Any, row: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("asyncflow.cli.tables.sinks.JSONLSink.write", full)
    ran = here("map", "in.jsonl", "-o", "out.jsonl", "--prompt", "{n}", "--simulate")
    assert ran.returncode == 1 and "No space left on device" in ran.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_an_input_that_changes_on_the_way(here: Any, rows: Rows, read: Read, tmp_path: Path) -> None:
    """It is named, the answers so far are kept in the .part, and the exit code is 1."""
    path = rows(*({"n": n} for n in range(30)))

    def reply(asked: Asked) -> str:
        if asked.prompt == "5":
            with path.open("a") as file:
                file.write("{broken\n")
        return "ok"

    with SimulatedProvider(reply=reply, latency=0) as provider:
        ran = here(
            "map", "in.jsonl", "-o", "out.jsonl", "--prompt", "{n}", "--model", "m",
            "--base-url", provider.base_url, "--concurrency", 2,
        )  # fmt: skip
    assert ran.returncode == 1 and "in.jsonl: it changed while it was read" in ran.stderr
    assert len(read(tmp_path / "out.jsonl.part")) == 30 and not (tmp_path / "out.jsonl").exists()
