"""What the tests share: one way to run an async function on each kind of loop, and a look at what is left."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeAlias

import pytest
import trio
import uvloop
from hypothesis import settings

from asyncflow import threads
from tests.postgres_fixtures import _postgres_server, postgres, postgres_url, pytest_terminal_summary

__all__ = ["_postgres_server", "postgres", "postgres_url", "pytest_terminal_summary"]

# A slow moment of the machine is no failure. In CI the examples stay the same; elsewhere new ones are tried.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

# A shell that starts the suite in the background has Ctrl-C ignored, which programs under test would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Runner: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


def on_asyncio(function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run on asyncio's own loop; afterwards no task but the caller's is left."""
    return asyncio.run(_alone(function))


def on_uvloop(function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run on uvloop; afterwards no task but the caller's is left."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_alone(function))


def on_trio(function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run on trio."""
    return trio.run(function)


async def _alone(function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    value = await function()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks were left behind: {left}"
    return value


LOOPS = {"asyncio": on_asyncio, "uvloop": on_uvloop, "trio": on_trio}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Runner:
    """`run(async_function)` on asyncio, uvloop and trio, one after the other."""
    return LOOPS[request.param]


@pytest.fixture(params=["asyncio", "uvloop"])
def run_asyncio(request: pytest.FixtureRequest) -> Runner:
    """`run(async_function)` on asyncio and uvloop: for what holds on asyncio only."""
    return LOOPS[request.param]


@pytest.fixture(autouse=True)
def no_thread_at_work() -> Iterator[None]:
    """After every test no worker thread holds a job."""
    yield
    deadline = time.monotonic() + 5
    while (busy := _at_work()) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not busy, f"{busy} thread jobs were left behind"


def _at_work() -> int:
    alive = sum(thread.name == "asyncflow-worker" for thread in threading.enumerate())
    return alive - len(threads._idle)
