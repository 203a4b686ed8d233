"""The kill loop around whole programs: the engine's doors, with retries and failures, killed at any moment.

    python -m tests.crash.engine_kill DIRECTORY DOOR KILLS SEED [POINT]

As `store_kill`, one floor up: a child says what it calls (`x`) and what it has been shown (`a`), and is
killed after a random number of words, or kills itself at a named point of the store. Run by
test_engine_kill.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asyncflow import AsyncFlow, AsyncParallelBatchNode, BatchNode, Failed, Flow, Retry, run_sync, stream
from asyncflow.errors import ItemCrashedError
from tests.crash.store_kill import armed

ITEMS, CONCURRENCY = 240, 8
#: Items that are not yet recorded may be this many; past that the engine begins none.
UNCOMMITTED = 64
RETRY = Retry(attempts=2, wait=0.0005)


class Program:
    def __init__(self, path: Path, say: Callable[[str], Any]) -> None:
        self.path, self.say = path, say
        self.tried: set[int] = set()

    def call(self, item: int) -> int:
        self.say(f"x{item}")
        if item % 7 == 3 and item not in self.tried:
            self.tried.add(item)
            raise OSError("once more")
        if item % 50 == 49:
            raise ValueError("never")
        return item * item

    def show(self, item: int, value: Any) -> None:
        if item % 50 == 49:
            assert isinstance(value, Failed)
        elif isinstance(value, Failed) and isinstance(value.error, ItemCrashedError):
            self.say(f"q{item}")  # four of these kills met it, the last one when it ran alone
        else:
            assert value == item * item, (item, value)
            self.say(f"a{item}")

    def run(self, door: str) -> None:
        program = self
        settings: dict[str, Any] = {"retry": RETRY, "on_error": "continue", "concurrency": CONCURRENCY}

        class Nodes(AsyncParallelBatchNode):
            async def prep_async(self, shared: Any) -> Any:
                return iter(range(ITEMS))

            async def exec_async(self, item: int) -> int:
                await asyncio.sleep(0)
                return program.call(item)

            def post_item(self, shared: Any, item: int, result: Any) -> None:
                program.show(item, result)

        class Threads(BatchNode):
            def prep(self, shared: Any) -> Any:
                return range(ITEMS)

            def exec(self, item: int) -> int:
                return program.call(item)

            def post_item(self, shared: Any, item: int, result: Any) -> None:
                program.show(item, result)

        async def read() -> None:
            async def step(item: int) -> int:
                await asyncio.sleep(0)
                return program.call(item)

            outcomes = stream(step, range(ITEMS), store=program.path, run_id="r", **settings)
            async for outcome in outcomes:
                program.show(outcome.item, getattr(outcome, "value", outcome))

        if door == "stream":
            asyncio.run(read())
        else:
            flow = AsyncFlow(start=Nodes(**settings)) if door == "nodes" else Flow(start=Threads(**settings))
            run_sync(flow, {}, store=self.path, run_id="r")


def child(path: Path, door: str, pipe: int, point: str | None, countdown: int) -> None:
    """Never returns."""
    code = 1
    try:
        if point is not None:
            armed(point, countdown)
        Program(path, lambda word: os.write(pipe, f"{word}\n".encode())).run(door)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def round_(
    path: Path, door: str, point: str | None, countdown: int, words: int | None
) -> tuple[list[str], int]:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        child(path, door, write, point, countdown)
    os.close(write)
    data = b""
    while part := os.read(read, 4096):
        data += part
        if words is not None and data.count(b"\n") >= words:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    os.close(read)
    return data.decode().splitlines(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(directory: Path, door: str, kills: int, seed: int, point: str | None) -> None:
    draw, path = random.Random(seed), directory / "runs.db"
    runs: Counter[int] = Counter()
    shown: set[int] = set()
    deaths = 0
    for number in range(kills + 1):
        last = number == kills
        words = None if point or last else draw.randrange(1, 3 * ITEMS // kills + 2)
        said, end = round_(path, door, None if last else point, draw.randrange(1, 4), words)
        assert end in ((0,) if last else (0, -signal.SIGKILL)), (end, said[-3:])
        deaths += end != 0
        called = Counter(int(word[1:]) for word in said if word[0] == "x")
        assert not called.keys() & shown, f"paid for again though shown: {called.keys() & shown}"
        runs.update(called)
        seen = [int(word[1:]) for word in said if word[0] == "a"]
        assert len(seen) == len(set(seen)), "shown twice in one session"
        shown.update(seen)
    good = {item for item in range(ITEMS) if item % 50 != 49}
    accused = {int(word[1:]) for word in said if word[0] == "q"}
    assert set(seen) | accused == good, good ^ set(seen) ^ accused
    assert len(accused) <= deaths // 4
    again = sum(times - (2 if item % 7 == 3 else 1) for item, times in runs.items() if item in good)
    assert again <= 2 * deaths * (CONCURRENCY + UNCOMMITTED), (again, deaths)
    print(f"deaths={deaths} again={again}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), *(sys.argv[5:] or [None]))
