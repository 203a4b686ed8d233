"""What the design says of the journal, sentence by sentence, where no other file has its test.

The others: `test_keys`, `test_codec`, `test_resume`, `test_writer`, `test_sqlstore`, `engine/test_journal`,
`crash/`.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from asyncflow import (
    AsyncFlow,
    AsyncNode,
    AsyncParallelBatchNode,
    Failed,
    amap,
    run_sync,
    stream,
)
from asyncflow.durability import SQLStore
from asyncflow.errors import KeyNeededError, NotStorableError, RateLimitedError
from asyncflow.llm import LLMClient
from asyncflow.testing import SimulatedProvider

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Person:
    name: str


def person(name: str) -> Person:
    return Person(name)


def undeclared(name: str) -> Any:
    return Person(name)


class Maker:
    async def __call__(self, name: str) -> Person:
        return Person(name)


def keyed(name: str, *, prefix: str) -> Person:
    return Person(prefix + name)


class Makes(AsyncParallelBatchNode):
    result_type = Person

    async def prep_async(self, shared: Any) -> Any:
        return ["a"]

    async def exec_async(self, name: str) -> Any:
        return Person(name)

    async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> None:
        shared["out"] = exec_res


@pytest.mark.parametrize(
    ("func", "options"),
    [
        (person, {}),
        (person, {"offload": False}),
        (Maker(), {}),
        (partial(keyed, prefix=""), {}),
        (undeclared, {"result_type": Person}),
    ],
    ids=["plain", "on the loop", "an object", "a partial", "result_type"],
)
def test_a_type_is_restored_when_it_is_declared(tmp_path: Path, func: Any, options: Any) -> None:
    """By the annotation, however the function is wrapped, or by `result_type`."""
    for _ in range(2):
        found = asyncio.run(amap(func, ["a"], store=tmp_path / "runs.db", run_id="r", **options))
        assert found == [Person("a")]


def test_a_node_may_declare_its_type(tmp_path: Path) -> None:
    """As an attribute of its class."""
    for _ in range(2):
        shared: dict[str, Any] = {}
        run_sync(AsyncFlow(start=Makes()), shared, store=tmp_path / "runs.db", run_id="r")
        assert shared["out"] == [Person("a")]


def test_a_value_that_could_not_be_restored_is_refused_when_first_recorded(tmp_path: Path) -> None:
    """Not a session later, when it has been paid for."""
    with pytest.raises(NotStorableError, match="Person"):
        asyncio.run(amap(undeclared, ["a"], store=tmp_path / "runs.db", run_id="r"))


def test_an_item_that_cannot_be_digested_is_told_before_it_is_called(tmp_path: Path) -> None:
    """With what to do; nothing has been called for it."""
    calls: list[Any] = []

    async def work(item: Any) -> None:
        calls.append(item)

    with pytest.raises(KeyNeededError, match="key="):
        asyncio.run(amap(work, [object()], store=tmp_path / "runs.db", run_id="r"))
    assert calls == []


@pytest.mark.parametrize("batch", [False, True])
def test_a_fallback_s_result_is_the_result(tmp_path: Path, batch: bool) -> None:
    """It is read back, and neither exec nor the fallback runs again."""
    calls: list[str] = []

    class Falls(AsyncParallelBatchNode if batch else AsyncNode):  # type: ignore[misc]
        async def prep_async(self, shared: Any) -> Any:
            return [1] if batch else 1

        async def exec_async(self, item: int) -> str:
            calls.append("exec")
            raise OSError

        async def exec_fallback_async(self, item: int, exc: Exception) -> str:
            calls.append("fallback")
            return "instead"

        async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> None:
            shared["out"] = exec_res

    for _ in range(2):
        shared: dict[str, Any] = {}
        run_sync(AsyncFlow(start=Falls()), shared, store=tmp_path / "runs.db", run_id="r")
        assert shared["out"] == (["instead"] if batch else "instead")
    assert calls == ["exec", "fallback"]


def test_prep_post_and_post_item_run_again(tmp_path: Path) -> None:
    """Their effects must be repeatable; only results of exec are read back."""
    log: list[str] = []

    class Told(Makes):
        async def prep_async(self, shared: Any) -> Any:
            log.append("prep")
            return ["a"]

        async def exec_async(self, name: str) -> Any:
            log.append("exec")
            return Person(name)

        def post_item(self, shared: Any, item: str, result: Any) -> None:
            log.append(f"post_item {result.name}")

        async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> None:
            log.append("post")

    for expected in (["prep", "exec", "post_item a", "post"], ["prep", "post_item a", "post"]):
        log.clear()
        run_sync(AsyncFlow(start=Told()), {}, store=tmp_path / "runs.db", run_id="r")
        assert log == expected


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day on, ten years back, between any two looks at it: what is kept and what counts is by order, not
    by time; and no item takes a negative time."""
    real, looks = time.time, [0]

    def jumping() -> float:
        looks[0] += 1
        return real() + (0, 86_400, -3e8, 3600, -5)[looks[0] % 5]

    monkeypatch.setattr(time, "time", jumping)
    calls: list[int] = []

    async def work(item: int) -> int:
        calls.append(item)
        if item in bad:
            raise ValueError(item)
        return item

    bad = {3, 7}
    store = tmp_path / "runs.db"
    for expected in (list(range(10)), [3, 7], [3], []):
        calls.clear()
        asyncio.run(amap(work, range(10), store=store, run_id="r", on_error="continue", timeout=60))
        assert sorted(calls) == expected
        bad = {3} if 7 in bad else set()
    reader = SQLStore(store).open_reader()
    assert all(record.began <= record.at for _, record in reader.following(1, 0, 100))
    reader.close()


FORKS = """
import asyncio, os, sys
from asyncflow import amap

async def work(item):
    if item == 3:
        pid = os.fork()
        if pid == 0:
            code = 9
            try:
                asyncio._set_running_loop(None)
                asyncio.run(amap(work, [], store=sys.argv[1], run_id="r"))
            except BaseException as error:
                holder = os.getppid() if str(os.getppid()) in str(error) else 0
                os.write(1, f"{type(error).__name__} {holder}\\n".encode())
                code = 7
            os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), os.getpid(), flush=True)
    return item

print(asyncio.run(amap(work, range(6), concurrency=1, store=sys.argv[1], run_id="r")))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_child_is_refused_and_the_run_is_whole(tmp_path: Path) -> None:
    """It opens the store and is told who has it; the parent's run is what it would have been."""
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(FORKS), encoding="utf-8")
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, str(program), str(tmp_path / "runs.db")],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=25,
        )
        lines = done.stdout.splitlines()
        assert lines[-1] == "[0, 1, 2, 3, 4, 5]", done.stderr
        if len(lines) > 1:
            refused, parent = lines[0].split()
            assert refused == "StoreLockedError" and lines[1] == f"7 {parent}"


SECRET = "sk-canary-f3b1c7"


def test_a_secret_is_in_no_file_of_the_run(tmp_path: Path) -> None:
    """A client's key, in answers, refusals and failures; and what parameters hold."""

    class Asks(AsyncNode):
        on_error = "continue"

        async def exec_async(self, prep_res: Any) -> str:
            async with SimulatedProvider(latency=0, faults={401: 0.3, 500: 0.3}, seed=2) as provider:
                async with LLMClient("m", base_url=provider.base_url, api_key=SECRET) as client:
                    answers = await amap(client.complete, ["a", "b", "c"], on_error="continue", limits=None)
            failed = [each for each in answers if isinstance(each, Failed)]
            if failed:
                raise failed[0].error
            return "answered"

    def refused(key: str) -> None:
        raise RateLimitedError("slow down", url="https://user@host/v1", method="POST")

    flow = AsyncFlow(start=Asks())
    flow.set_params({"api_key": SECRET})
    flow.start_node.set_params({"api_key": SECRET})  # type: ignore[union-attr]
    for number in range(4):
        run_sync(flow, {}, store=tmp_path / "runs.db", run_id=f"r{number}")
    asyncio.run(
        amap(refused, [SECRET], on_error="continue", store=tmp_path / "runs.db", run_id="items", key=len)
    )
    files = list(tmp_path.iterdir())
    assert files and not any(SECRET.encode() in each.read_bytes() for each in files)


def test_memory_of_a_resumed_stream_is_flat(tmp_path: Path) -> None:
    """In the number of finished items: some tens of bytes for each, to know equal ones apart."""

    async def work(item: int) -> str:
        return f"{item:0400}"

    async def go(count: int) -> int:
        seen = 0
        items: Iterator[int] = iter(range(count))
        async for _ in stream(work, items, concurrency=64, store=tmp_path / f"{count}.db", run_id="r"):
            seen += 1
        return seen

    peaks = {}
    for count in (3_000, 15_000):
        asyncio.run(go(count))
        tracemalloc.start()
        try:
            assert asyncio.run(go(count)) == count
            peaks[count] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peaks[15_000] - peaks[3_000] < 12_000 * 60, peaks
