"""Whatever a run has been through, it ends with the right results, and nothing recorded is called again."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from asyncflow import (
    AsyncParallelBatchNode,
    BatchNode,
    Failed,
    Retry,
    Stop,
    amap,
    run,
    stream,
)
from asyncflow.durability import MemoryStore
from asyncflow.durability.store import OK
from asyncflow.errors import RunStoppedError


@dataclass(frozen=True)
class Session:
    """One start of the program.

    Attributes:
        door: Which way it runs the items.
        concurrency: How many at once.
        cut: After how many calls it is ended, and how; None: it comes to its end.
        bad: Items whose first attempt of the session fails.
        hopeless: Items that fail altogether in this session.
        shuffle: Whether the source is turned round.
    """

    door: str
    concurrency: int
    cut: tuple[str, int] | None
    bad: frozenset[int]
    hopeless: frozenset[int]
    shuffle: bool


VALUES = st.integers(0, 7)
DOORS = ("amap", "stream", "ordered", "batch", "post_item", "plain", "threads")
SESSIONS = st.builds(
    Session,
    door=st.sampled_from(DOORS),
    concurrency=st.integers(1, 5),
    cut=st.none() | st.tuples(st.sampled_from(("stop", "cancel", "task", "raise")), st.integers(1, 12)),
    bad=st.frozensets(VALUES, max_size=4),
    hopeless=st.frozensets(VALUES, max_size=2),
    shuffle=st.booleans(),
)


class Cut(Exception):
    pass


class Program:
    """The same step behind every door, under one path, so that each goes on with the others' run."""

    def __init__(self, items: list[int], store: MemoryStore) -> None:
        self.items, self.store = items, store
        self.calls: Counter[int] = Counter()
        self.session: Session
        self.stop: Stop
        self.task: asyncio.Task[Any]
        self.tried: Counter[int] = Counter()

    def recorded(self) -> Counter[int]:
        """How many items of each value have a result in the store."""
        latest = [self.store._log[at] for at in self.store._latest.values()]
        return Counter(int(record.data) // 10 for record in latest if record.kind == OK)

    def called(self, item: int) -> int:
        session = self.session
        self.calls[item] += 1
        self.tried[item] += 1
        if session.cut is not None and self.calls.total() == session.cut[1]:
            how = session.cut[0]
            if how == "stop":
                self.stop.request()
            elif how == "cancel":
                self.stop.cancel()
            elif how == "task":
                self.task.cancel()
            else:
                raise Cut
        if item in session.hopeless or (item in session.bad and self.tried[item] == 1):
            raise OSError(item)
        return item * 10

    async def main(self) -> dict[int, Any] | None:
        """One session; what became of each position, or None where it was cut."""
        self.task = asyncio.current_task()  # type: ignore[assignment]
        self.stop = Stop(grace=0 if self.session.cut and self.session.cut[1] % 2 else 30)
        try:
            return await self.through(self.session)
        except (Cut, RunStoppedError, OSError):
            return None
        except asyncio.CancelledError:
            self.task.uncancel()
            return None

    async def through(self, session: Session) -> dict[int, Any]:
        positions = list(range(len(self.items)))
        if session.shuffle:
            positions.reverse()
        items = [self.items[position] for position in positions]
        out: list[Any] = []
        program = self
        cuts = session.cut is not None and session.cut[0] == "raise"
        retry = Retry(attempts=2, wait=0.0005, on=(OSError,))
        common: dict[str, Any] = {
            "concurrency": session.concurrency,
            "on_error": "raise" if cuts else "continue",
            "retry": retry,
        }
        stored: dict[str, Any] = {"store": self.store, "run_id": "r", "changed": "keep", "stop": self.stop}

        async def step(item: int) -> int:
            await asyncio.sleep(0)
            value = program.called(item)
            await asyncio.sleep(0)
            return value

        step.__name__ = "Step"
        if session.door == "amap":
            out = await amap(step, items, **common, **stored)
        elif session.door in ("stream", "ordered"):
            outcomes = stream(step, iter(items), ordered=session.door == "ordered", **common, **stored)
            found: dict[int, Any] = {}
            async with outcomes:
                async for outcome in outcomes:
                    found[outcome.index] = getattr(outcome, "value", outcome)
            out = [found[at] for at in range(len(items))]
        else:

            class Loop(AsyncParallelBatchNode):
                async def prep_async(self, shared: Any) -> Any:
                    return items

                async def exec_async(self, item: int) -> int:
                    return await step(item)

                async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> None:
                    out.extend(exec_res or [])

            class Told(Loop):
                def post_item(self, shared: Any, item: int, result: Any) -> None:
                    out.append(result)

            class Plain(BatchNode):
                def prep(self, shared: Any) -> Any:
                    return items

                def exec(self, item: int) -> int:
                    return program.called(item)

                def post(self, shared: Any, prep_res: Any, exec_res: Any) -> None:
                    out.extend(exec_res)

            kind: Any = {"batch": Loop, "post_item": Told, "plain": Plain, "threads": Plain}[session.door]
            if session.door == "plain":
                common["concurrency"] = 1
            elif session.door == "threads":
                common["concurrency"] = 2
            await run(kind(name="Step", **common), {}, **stored)
        return {position: out[at] for at, position in enumerate(positions)}


@settings(max_examples=150)
@given(
    items=st.lists(VALUES, min_size=1, max_size=14),
    history=st.lists(SESSIONS, min_size=1, max_size=4),
)
def test_it_ends_right_and_calls_nothing_twice(items: list[int], history: list[Session]) -> None:
    """Any sessions, cut off anywhere in any way, with items that fail once or for good, in either order."""
    store = MemoryStore()
    program = Program(items, store)
    wanted = Counter(items)
    last = Session(history[-1].door, 3, None, frozenset(), frozenset(), False)
    for session in (*history, last):
        program.session = session
        program.calls.clear()
        program.tried.clear()
        before = program.recorded()
        outcome = asyncio.run(program.main())
        owed = wanted - before
        assert all(times <= 2 * owed[item] for item, times in program.calls.items())
        assert not (before - program.recorded()), "a record is gone"
        if outcome is not None:
            for position, item in enumerate(items):
                value = outcome[position]
                assert value == item * 10 or (item in session.hopeless and isinstance(value, Failed)), value
    assert program.recorded() >= wanted
