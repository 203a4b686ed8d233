"""asyncflow/cli/map/silence.py: a server that takes calls and answers none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asyncflow.cli.map.silence import LONG, Silence
from asyncflow.events import ItemFinished, ItemResumed, ItemStarted, ItemWaiting
from asyncflow.outcome import Ok
from asyncflow.testing import Asked, SimulatedProvider

PATH = ("map",)


def test_it_is_told_once_until_something_comes_back() -> None:
    """Counted from the last sign of life; what only waits is not under way."""
    told: list[str] = []
    silence = Silence(told.append, timeout=300)
    silence(ItemStarted(PATH, 0.0, 0, 1))
    silence(ItemStarted(PATH, 0.0, 1, 1))
    silence(ItemWaiting(PATH, 0.0, 1, "limit"))
    silence.look(LONG - 1)
    assert not told
    for more in range(3):
        silence.look(LONG + more)
    assert told == ["no answer for 60 s, with 1 under way: a call may take 300 s (--timeout)"]
    silence(ItemFinished(PATH, 100.0, Ok(None, index=0)))
    silence.look(1000.0)
    assert len(told) == 1  # nothing is under way
    silence(ItemResumed(PATH, 1000.0, 1))
    silence.look(1000.0 + LONG - 1)
    assert len(told) == 1
    silence.look(1000.0 + LONG)
    assert len(told) == 2


def test_the_command_tells_it(
    here: Any, rows: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a call hangs it is said; the answer that comes later is as good as any."""
    monkeypatch.setattr("asyncflow.cli.map.silence.LONG", 0.05)
    rows({"n": 1})
    told = threading.Event()

    class Heard(Silence):
        def look(self, now: float) -> None:
            super().look(now)
            if self._told:
                told.set()

    monkeypatch.setattr("asyncflow.cli.map.run.Silence", Heard)

    async def reply(asked: Asked) -> str:
        while not told.is_set():
            await asyncio.sleep(0.01)
        return "ok"

    with SimulatedProvider(reply=reply, latency=0) as provider:
        command = ("map", "in.jsonl", "-o", "out.jsonl", "--prompt", "{n}", "--model", "m")
        ran = here(*command, "--base-url", provider.base_url, "--timeout", 120)
    assert ran.returncode == 0 and "a call may take 120 s (--timeout)" in ran.stderr
