"""asyncflow/cli/map/turns.py: which rows are given up when a run is asked to stop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asyncflow.cli.map.turns import NotAskedError, Turns
from asyncflow.engine.stopping import Stop
from asyncflow.waiting import current, spent, waiting


class Behind:
    """Stands where the engine stands."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def pause(self, reason: str) -> None:
        self.heard.append(reason)

    async def resume(self) -> None:
        self.heard.append("resumed")

    def pause_from_thread(self, reason: str) -> None:
        self.heard.append(f"{reason} on a thread")

    def resume_from_thread(self) -> None:
        self.heard.append("resumed on a thread")

    def spend(self, *tokens: Any) -> None:
        self.heard.append(f"spent {tokens[0]}")


@pytest.mark.asyncio
async def test_who_is_given_up() -> None:
    """Whoever only waits and has paid nothing; not who is at work, nor who has paid for a part."""
    stop, come = Stop(), asyncio.Event()
    turns = Turns(stop)

    async def row(kind: str) -> str:
        with turns.turn():
            if kind == "paid":
                spent(1, 1)
            if kind == "at work":
                await come.wait()
            else:
                async with waiting("limit"):
                    await come.wait()
        return kind

    with turns.heard():
        rows = [asyncio.create_task(row(kind)) for kind in ("waits", "at work", "paid")]
        await asyncio.sleep(0)
        stop.request("SIGINT")
        with pytest.raises(NotAskedError, match="asked to stop"):
            await rows[0]
        come.set()
        assert await asyncio.gather(*rows[1:]) == ["at work", "paid"]
        with pytest.raises(NotAskedError):
            await row("late")
        assert not turns.idle


@pytest.mark.asyncio
async def test_a_turn_that_comes_in_the_same_moment() -> None:
    """A row whose turn has come when it is given up does not begin."""
    stop, come, begun = Stop(), asyncio.Event(), []
    turns = Turns(stop)

    async def row() -> None:
        with turns.turn():
            async with waiting("limit"):
                await come.wait()
            begun.append(1)

    with turns.heard():
        task = asyncio.create_task(row())
        await asyncio.sleep(0)
        come.set()
        stop.request()
        with pytest.raises(NotAskedError):
            await task
    assert not begun


@pytest.mark.asyncio
async def test_the_engine_hears_it_all() -> None:
    """What is said of waiting and spending is passed on; a cancellation from outside stays one."""
    behind, turns = Behind(), Turns(Stop())
    token = current.set(behind)
    try:
        with turns.turn():
            async with waiting("limit"):
                pass
            with waiting("store"):
                pass
            spent(7, 1)
        assert current.get() is behind
        task = asyncio.create_task(hang(turns))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        current.reset(token)
    assert behind.heard[:5] == ["limit", "resumed", "store on a thread", "resumed on a thread", "spent 7"]
    assert not turns.idle


async def hang(turns: Turns) -> None:
    with turns.turn():
        async with waiting("limit"):
            await asyncio.Event().wait()
