"""A program one of whose items ends the process, started again until it comes to its end.

    python -m tests.crash.poison DIRECTORY DOOR HOW

Run by test_poison.py, in a process without threads, so that it may fork. Prints, for each start, how it ended
and what was called: `-9 0 1 2 …` with the item that ended it last.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asyncflow import (
    AsyncFlow,
    AsyncNode,
    AsyncParallelBatchFlow,
    AsyncParallelBatchNode,
    BatchNode,
    Failed,
    Flow,
    Node,
    amap,
    run_sync,
    stream,
)
from asyncflow.errors import ItemCrashedError

ITEMS, POISON, CONCURRENCY = 14, 6, 4
STARTS = 12


class Program:
    def __init__(self, path: Path | str, door: str, how: str, log: int) -> None:
        self.path, self.door, self.how, self.log = path, door, how, log

    def die(self) -> None:
        if self.how == "exit":
            os._exit(3)
        os.kill(os.getpid(), getattr(signal, self.how))

    async def work(self, item: int) -> int:
        os.write(self.log, f"{item}\n".encode())
        for _ in range(3):
            await asyncio.sleep(0)
        if item == POISON:
            self.die()
        return item * item

    def work_plainly(self, item: int) -> int:
        os.write(self.log, f"{item}\n".encode())
        if item == POISON:
            self.die()
        return item * item

    def options(self) -> dict[str, Any]:
        return {"store": self.path, "run_id": "r"}

    def source(self) -> Iterator[int]:
        yield from range(ITEMS)

    def outcomes(self) -> list[Any]:
        """What became of each item."""
        settings: dict[str, Any] = {"concurrency": CONCURRENCY, "on_error": "continue"}
        program = self

        async def work(item: int) -> int:
            return await program.work(item)

        if self.door == "amap":
            return asyncio.run(amap(work, range(ITEMS), **settings, **self.options()))
        if self.door == "stream":

            async def read() -> list[Any]:
                outcomes = stream(work, self.source(), ordered=True, **settings, **self.options())
                return [getattr(outcome, "value", outcome) async for outcome in outcomes]

            return asyncio.run(read())

        class Batch(AsyncParallelBatchNode):
            async def prep_async(self, shared: Any) -> Any:
                return program.source()

            async def exec_async(self, item: int) -> int:
                return await program.work(item)

            async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> None:
                shared["out"] = exec_res

        class Plain(BatchNode):
            def prep(self, shared: Any) -> Any:
                return list(range(ITEMS))

            def exec(self, item: int) -> int:
                return program.work_plainly(item)

            def post(self, shared: Any, prep_res: Any, exec_res: Any) -> None:
                shared["out"] = exec_res

        class One(AsyncNode):
            async def exec_async(self, prep_res: Any) -> int:
                return await program.work(self.params["n"])

            async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> None:
                shared.setdefault("out", [None] * ITEMS)[self.params["n"]] = exec_res

        class Wait(AsyncNode):
            async def exec_async(self, prep_res: Any) -> None:
                for _ in range(3 if self.params["n"] == POISON else 5_000):
                    await asyncio.sleep(0)

        class Beside(Node):
            def exec(self, prep_res: Any) -> int:
                return program.work_plainly(self.params["n"])

            def post(self, shared: Any, prep_res: Any, exec_res: Any) -> None:
                shared.setdefault("out", [None] * ITEMS)[self.params["n"]] = exec_res

        class All(AsyncParallelBatchFlow):
            async def prep_async(self, shared: Any) -> Any:
                return [{"n": n} for n in range(ITEMS)]

        settings.pop("on_error")
        flow: Any = {
            "batch": lambda: AsyncFlow(start=Batch(on_error="continue", **settings)),
            "threads": lambda: Flow(start=Plain(on_error="continue", **settings)),
            "in place": lambda: Flow(start=Plain(on_error="continue")),
            "nodes": lambda: All(start=One(on_error="continue"), **settings),
            "beside": lambda: All(start=_chain(Wait(), Beside(on_error="continue")), **settings),
            "inside": lambda: All(
                start=AsyncFlow(start=_chain(Wait(), Flow(start=Beside(on_error="continue")))), **settings
            ),
        }[self.door]()
        shared: dict[str, Any] = {}
        run_sync(flow, shared, **self.options())
        found: list[Any] = shared["out"]
        return found


def _chain(first: Any, second: Any) -> Any:
    first >> second
    return first


def child(path: Path | str, door: str, how: str, log: int) -> None:
    """Never returns."""
    code = 1
    try:
        outcomes = Program(path, door, how, log).outcomes()
        poison = outcomes[POISON]
        assert isinstance(poison, Failed) and isinstance(poison.error, ItemCrashedError), poison
        assert [each for each in outcomes if each is not poison] == [
            n * n for n in range(ITEMS) if n != POISON
        ]
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def main(directory: Path, door: str, how: str, url: str | None) -> None:
    for number in range(STARTS):
        log = directory / f"log{number}"
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        pid = os.fork()
        if pid == 0:
            child(url or directory / "runs.db", door, how, file)
        os.close(file)
        end = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(end, *log.read_text().split(), flush=True)
        if end == 0 and number and not log.read_text():
            return  # once more after the end: nothing is left to do


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else None)
