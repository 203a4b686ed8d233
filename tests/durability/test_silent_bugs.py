"""Bugs of resuming that others have had, and that nobody was told of: each a case, named after the report.

They are silent because the resumed run ends well: with results of another program, without results that were
paid for, with failures called done, or with everything paid twice. What happened there is in the docstring,
what happens here is the body.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asyncflow import (
    AsyncFlow,
    AsyncNode,
    AsyncParallelBatchFlow,
    AsyncParallelBatchNode,
    Failed,
    Node,
    Retry,
    Skipped,
    Stop,
    amap,
    run_sync,
    stream,
)
from asyncflow.durability import MemoryStore, SQLStore, open_run
from asyncflow.durability.resume import code_digest
from asyncflow.durability.store import FAILED, OK
from asyncflow.errors import (
    BudgetSpentError,
    DuplicateKeyError,
    NotStorableError,
    RecordedError,
    ResumeMismatchError,
    RunStoppedError,
    StoreError,
    StoreLockedError,
)
from asyncflow.outcome import Spent
from asyncflow.waiting import spent


class Place:
    """One store, one run; what was called in it since `fresh`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "runs.db"
        self.calls: list[Any] = []

    def fresh(self) -> list[Any]:
        found, self.calls = sorted(self.calls, key=repr), []
        return found

    def amap(self, func: Any, items: Any, **options: Any) -> Any:
        return asyncio.run(amap(func, items, **{"store": self.path, "run_id": "r", **options}))

    def flow(self, flow: Any, **shared: Any) -> dict[str, Any]:
        run_sync(flow, shared, store=self.path, run_id="r")
        return shared

    def kinds(self) -> list[int]:
        reader = SQLStore(self.path).open_reader()
        try:
            return [record.kind for _, record in reader.following(1, 0, 10_000)]
        finally:
            reader.close()


def router_that_raised(place: Place) -> None:
    """langgraph#8834: resumed after the router had raised, the run skipped the routing and ended well."""

    class Ask(Node):
        def exec(self, prep_res: Any) -> str:
            place.calls.append("ask")
            return "left"

        def post(self, shared: Any, prep_res: Any, exec_res: Any) -> str:
            if shared["broken"]:
                raise RuntimeError("router")
            return str(exec_res)

    class Left(Node):
        def exec(self, prep_res: Any) -> None:
            place.calls.append("went left")

    def flow() -> AsyncFlow:
        ask = Ask()
        ask - "left" >> Left()
        return AsyncFlow(start=ask)

    with pytest.raises(RuntimeError, match="router"):
        place.flow(flow(), broken=True)
    place.flow(flow(), broken=False)
    assert place.fresh() == ["ask", "went left"]


def another_graph(place: Place) -> None:
    """TradingAgents#1089: a checkpoint was continued in a graph that was no longer the one that wrote it."""

    class A(AsyncNode): ...

    class B(AsyncNode): ...

    def flow(action: str, *names: str) -> AsyncFlow:
        start = A(name=names[0])
        start - action >> B(name=names[1])
        return AsyncFlow(start=start, name="F")

    place.flow(flow("default", "a", "b"))
    for changed, differs in (
        (flow("other", "a", "b"), "now: F: a - 'other' >> b"),
        (flow("default", "a", "c"), "F/b is gone"),
        (flow("default", "x", "b"), "F/x is new"),
    ):
        with pytest.raises(ResumeMismatchError) as caught:
            place.flow(changed)
        assert differs in caught.value.differences


def kill_during_resume(place: Place) -> None:
    """inspect_ai#4933: a resume that was killed itself lost what the first run had done.

    (With SIGKILL: `crash/test_store_kill.py::test_killed_during_resume_ten_times`.)
    """

    async def work(item: int) -> int:
        place.calls.append(item)
        if len(place.calls) > 2:
            stop.cancel("killed")
            await asyncio.sleep(1)
        return item

    done: list[int] = []
    for _ in range(4):
        stop = Stop()
        with pytest.raises(RunStoppedError):
            place.amap(work, range(20), stop=stop, concurrency=1)
        called = place.fresh()
        assert not set(called[:2]) & set(done)
        done += called[:2]
        assert len(place.kinds()) == len(done)


def usage_begins_at_zero(place: Place) -> None:
    """inspect_ai#2628: the usage of a resumed run was that of its last session."""

    async def work(item: int) -> int:
        spent(100, 10)
        return item

    place.amap(work, [1, 2])
    place.amap(work, [1, 2, 3])
    reader = SQLStore(place.path).open_reader()
    assert reader.spent(1) == Spent(300, 30)
    reader.close()


def failed_is_replayed_as_done(place: Place) -> None:
    """lionagi#3235: a node that had failed came back as a terminal one, and the run as a success."""

    async def work(item: int) -> int:
        place.calls.append(item)
        if broken:
            raise OSError(item)
        return item

    broken = True
    assert isinstance(place.amap(work, [1], on_error="continue")[0], Failed)
    broken = False
    assert place.amap(work, [1], on_error="continue") == [1]
    assert place.fresh() == [1, 1]


def state_of_another_parameter_set(place: Place) -> None:
    """burr#761: parallel sub-runs replayed the state of inputs that had changed since."""

    class Load(AsyncNode):
        async def prep_async(self, shared: Any) -> Any:
            return shared["files"][self.params["name"]]

        async def exec_async(self, text: str) -> str:
            place.calls.append(text)
            return text.upper()

        async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> None:
            shared[self.params["name"]] = exec_res

    class All(AsyncParallelBatchFlow):
        async def prep_async(self, shared: Any) -> Any:
            return [{"name": name} for name in shared["files"]]

    place.flow(All(start=Load()), files={"a": "one", "b": "two"})
    assert place.fresh() == ["one", "two"]
    shared = place.flow(All(start=Load()), files={"b": "two", "a": "changed", "c": "one"})
    assert place.fresh() == ["changed", "one"]
    assert (shared["a"], shared["b"], shared["c"]) == ("CHANGED", "TWO", "ONE")


def results_by_position(place: Place) -> None:
    """Several runners number rows: one inserted row, and each result belongs to its neighbour."""

    async def work(item: str) -> str:
        place.calls.append(item)
        return item * 2

    place.amap(work, ["a", "b", "b", "c"])
    place.fresh()
    assert place.amap(work, ["new", "c", "b", "a", "b"]) == ["newnew", "cc", "bb", "aa", "bb"]
    assert place.fresh() == ["new"]


def equal_items_share_a_result(place: Place) -> None:
    """Caches keyed by the prompt give two equal rows one draw: each row is an item of its own."""

    async def work(item: str) -> int:
        place.calls.append(item)
        return len(place.calls)

    first = place.amap(work, ["x", "x", "x"])
    assert sorted(first) == [1, 2, 3] and place.amap(work, ["x", "x", "x"]) == first


def two_items_with_one_key(place: Place) -> None:
    """A dict of results by key keeps the last of two rows with the same id: refused, with the key."""

    async def work(item: Any) -> int:
        return int(item["n"])

    with pytest.raises(DuplicateKeyError, match="'same' came twice"):
        place.amap(work, [{"id": "same", "n": 1}, {"id": "same", "n": 2}], key=lambda row: row["id"])


def keys_that_forget_types(place: Place) -> None:
    """Keys made by `str` give 1 and "1" one result; json dumps makes one key of {1: 2} and {"1": 2}."""

    async def work(item: Any) -> str:
        return type(item).__name__ + repr(item)

    items = [1, "1", 1.0, True, None, "None", {1: 2}, {"1": 2}, (1,), [1]]
    first = place.amap(work, items)
    assert len(set(first)) == len(items) and place.amap(work, items[::-1]) == first[::-1]


def only_the_first_attempt_is_recorded(place: Place) -> None:
    """asyncflow before 0.1: items that were tried twice were recorded without a key, and all but one lost."""

    async def work(item: int) -> int:
        place.calls.append(item)
        if place.calls.count(item) == 1:
            raise OSError(item)
        return item

    retry = Retry(attempts=2, wait=0)
    assert place.amap(work, range(4), retry=retry) == [0, 1, 2, 3]
    place.fresh()
    assert place.amap(work, range(4), retry=retry) == [0, 1, 2, 3]
    assert place.fresh() == []


def interrupt_between_attempts(place: Place) -> None:
    """dbos-transact-py#260: Ctrl-C while an item waited for its retry was recorded as its failure."""

    async def work(item: int) -> int:
        place.calls.append(item)
        raise OSError(item)

    async def main() -> None:
        task = asyncio.ensure_future(
            amap(work, [1], store=place.path, run_id="r", retry=Retry(attempts=3, wait=100), on_error=0.9)
        )
        while not place.calls:
            await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert place.kinds() == []


def budget_is_recorded_as_done(place: Place) -> None:
    """A row that was skipped for want of money counted as handled, and was never asked."""

    async def work(item: int) -> int:
        place.calls.append(item)
        if poor:
            raise BudgetSpentError("no money")
        return item

    poor = True
    assert [type(one) for one in place.amap(work, [1, 2], on_error="continue")] == [Skipped, Skipped]
    poor = False
    assert place.amap(work, [1, 2], on_error="continue") == [1, 2]


def exception_that_cannot_be_rebuilt(place: Place) -> None:
    """dbos-transact-py: an error whose class takes other arguments than its text broke the replay."""

    class Odd(Exception):
        def __init__(self, a: int, b: int) -> None:
            super().__init__(a)

        def __str__(self) -> str:
            raise RuntimeError("no text")

    async def work(item: int) -> int:
        raise Odd(1, 2)

    place.amap(work, [1], on_error="continue")
    [failed] = place.amap(work, [1], on_error="continue", retry_failed=False)
    assert isinstance(failed.error, RecordedError) and failed.error.kind.endswith("Odd")


def result_that_does_not_come_back(place: Place) -> None:
    """Stores that write `repr`, or pickle a client: refused when first recorded, and known as failed."""

    async def work(item: int) -> Any:
        return object() if item else {"a": (1, float("nan"))}

    good, bad = place.amap(work, [0, 1], on_error="continue")
    assert isinstance(bad.error, NotStorableError)
    [again] = place.amap(work, [0], on_error="continue")
    assert repr(again) == repr(good) and type(again["a"]) is tuple


def write_that_fails_is_only_logged(place: Place) -> None:
    """datatrove: a cache that could not be written to was a line in a log, and the run went on unrecorded."""
    store = MemoryStore()
    store.failures = [ValueError("broken")] * 3

    async def work(item: int) -> int:
        place.calls.append(item)
        return item

    with pytest.raises(StoreError, match="broken"):
        place.amap(work, range(10_000), store=store)
    assert len(place.calls) < 500


def failed_rows_keep_it_from_ending(place: Place) -> None:
    """datatrove: chunks with a bad request were never complete, so each start asked all their rows again."""

    async def work(item: int) -> int:
        place.calls.append(item)
        if item == 3:
            raise ValueError(item)
        return item

    for expected in (list(range(10)), [3], [3]):
        place.amap(work, range(10), on_error="continue")
        assert place.fresh() == expected


def code_by_its_bytes(place: Place) -> None:
    """distilabel#588: a cache keyed by code bytes was emptied by a comment, or by another Python."""
    sources = (
        "async def work(item):\n    return item + 1\n",
        "async def work(item):\n    '''Said.'''\n\n    # why\n    return (item +\n            1)\n",
        "async def work(item):\n    return item + 2\n",
    )
    digests = []
    for number, source in enumerate(sources):
        path = place.directory / f"code{number}.py"
        path.write_text(source, encoding="utf-8")
        space: dict[str, Any] = {}
        exec(compile(source, str(path), "exec"), space)
        digests.append(code_digest(space["work"]))
    assert digests[0] == digests[1] != digests[2]


def two_functions_of_one_name(place: Place) -> None:
    """pixeltable#1168 had one estimator for two functions; what a run keeps is for one of them."""

    def make(number: int) -> Any:
        if number == 1:

            async def work(item: int) -> int:
                return item + 1

        else:

            async def work(item: int) -> int:
                return item - 1

        return work

    place.amap(make(1), [1])
    with pytest.raises(ResumeMismatchError, match="code of exec has changed"):
        place.amap(make(2), [1])


def another_way_the_second_time(place: Place) -> None:
    """Replays of what is not deterministic go on in the wrong branch: told, not guessed."""

    class Choose(Node):
        def post(self, shared: Any, prep_res: Any, exec_res: Any) -> str:
            return str(shared["way"])

    def flow() -> AsyncFlow:
        choose = Choose()
        choose - "left" >> AsyncNode(name="l")
        choose - "right" >> AsyncNode(name="r")
        return AsyncFlow(start=choose)

    place.flow(flow(), way="left")
    with pytest.raises(ResumeMismatchError, match="returned 'right'"):
        place.flow(flow(), way="right")


def upstream_result_has_changed(place: Place) -> None:
    """A step was replayed though what it works on had been made anew."""

    class First(AsyncNode):
        async def exec_async(self, prep_res: Any) -> int:
            return int(number)

        async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> None:
            shared["first"] = exec_res

    class Second(AsyncNode):
        async def prep_async(self, shared: Any) -> Any:
            return shared["first"]

        async def exec_async(self, prep_res: Any) -> Any:
            place.calls.append(prep_res)
            return prep_res * 10

        async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> None:
            shared["second"] = exec_res

    def flow(version: str) -> AsyncFlow:
        first = First(version=version)
        first >> Second()
        return AsyncFlow(start=first)

    number = 1
    assert place.flow(flow("1"))["second"] == 10
    number = 2
    shared: dict[str, Any] = {}
    run_sync(flow("2"), shared, store=place.path, run_id="r", changed="drop")
    assert shared["second"] == 20 and place.fresh() == [1, 2]


def order_of_completion(place: Place) -> None:
    """Files written as results came were read back as if they were in input order."""

    async def work(item: int) -> int:
        await asyncio.sleep(0.001 * (5 - item))
        return item

    async def read() -> list[tuple[int, Any]]:
        outcomes = stream(work, range(5), ordered=True, store=place.path, run_id="r")
        return [(outcome.index, getattr(outcome, "value", None)) async for outcome in outcomes]

    assert asyncio.run(read()) == asyncio.run(read()) == [(n, n) for n in range(5)]


def twice_in_the_output(place: Place) -> None:
    """Resumed appends left rows twice in the output: each item is delivered once in each session."""
    seen: list[int] = []

    class Work(AsyncParallelBatchNode):
        async def prep_async(self, shared: Any) -> Any:
            return range(6)

        async def exec_async(self, item: int) -> int:
            if item == 4 and shared["broken"]:
                raise ValueError(item)
            return item

        def post_item(self, shared: Any, item: int, result: int) -> None:
            seen.append(item)

    shared = {"broken": True}
    with pytest.raises(ValueError):
        place.flow(AsyncFlow(start=Work(concurrency=1)))
    shared["broken"] = False
    seen.clear()
    place.flow(AsyncFlow(start=Work(concurrency=1)))
    assert seen == list(range(6))


def stored_but_counted_short(place: Place) -> None:
    """DataDesigner#623: the count in the metadata lagged behind the rows, so finished ones ran again."""

    async def work(item: int) -> int:
        if item == 7:
            raise ValueError(item)
        return item

    with pytest.raises(ValueError):
        place.amap(work, range(20), concurrency=3)
    kinds = Counter(place.kinds())
    with open_run(place.path, "r") as journal:
        assert (journal.counts.done, journal.counts.failed) == (kinds[OK], kinds[FAILED])


def the_same_run_twice_at_once(place: Place) -> None:
    """Two starts of one run made all calls twice; here another process is refused, and so is this one."""

    async def work(item: int) -> int:
        place.calls.append(item)
        await asyncio.sleep(0.01)
        return item

    async def main() -> list[Any]:
        both = (amap(work, range(3), store=place.path, run_id="r") for _ in range(2))
        return await asyncio.gather(*both, return_exceptions=True)

    results = asyncio.run(main())
    assert sorted(map(type, results), key=str) == [StoreLockedError, list]
    assert place.fresh() == [0, 1, 2]
    assert place.amap(work, range(3)) == [0, 1, 2] and place.fresh() == []


def source_that_breaks(place: Place) -> None:
    """A file that could not be read further lost what had been asked before: it is kept."""

    def rows(length: int) -> Any:
        yield from range(length)
        if length < 10:
            raise OSError("row 4 cannot be read")

    async def work(item: int) -> int:
        place.calls.append(item)
        return item

    with pytest.raises(OSError, match="row 4"):
        place.amap(work, rows(4))
    assert place.fresh() == [0, 1, 2, 3]
    assert place.amap(work, rows(10)) == list(range(10))
    assert place.fresh() == list(range(4, 10))


CASES: list[Callable[[Place], None]] = [
    found
    for name, found in list(globals().items())
    if getattr(found, "__module__", None) == __name__ and callable(found) and not isinstance(found, type)
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_it_does_not_happen_here(case: Callable[[Place], None], tmp_path: Path) -> None:
    """See the case."""
    case(Place(tmp_path))
