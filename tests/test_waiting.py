"""`waiting` outside any exec means nothing; inside it tells the attempt."""

from __future__ import annotations

from typing import Any

import pytest

from asyncflow import waiting
from asyncflow.waiting import current


class Recorder:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause(self, reason: str) -> None:
        self.calls.append(f"pause {reason}")

    async def resume(self) -> None:
        self.calls.append("resume")

    def pause_from_thread(self, reason: str) -> None:
        self.calls.append(f"thread pause {reason}")

    def resume_from_thread(self) -> None:
        self.calls.append("thread resume")


def test_without_an_attempt_it_means_nothing(run: Any) -> None:
    """Both forms can be used anywhere."""

    async def main() -> str:
        async with waiting("a while"):
            with waiting("more"):
                return "here"

    assert run(main) == "here"


def test_the_attempt_is_told_of_the_end_whatever_happens(run: Any) -> None:
    """An error in the block goes on after the attempt has resumed."""
    recorder = Recorder()

    async def main() -> None:
        current.set(recorder)
        with pytest.raises(KeyError):
            async with waiting("limit"):
                raise KeyError
        with pytest.raises(KeyError):
            with waiting("limit"):
                raise KeyError

    run(main)
    assert recorder.calls == ["pause limit", "resume", "thread pause limit", "thread resume"]
