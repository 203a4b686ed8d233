"""Stored runs as users write them: `store=` and `run_id=` on each door."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from asyncflow import (
    AsyncFlow,
    AsyncNode,
    AsyncParallelBatchNode,
    BatchNode,
    Failed,
    Flow,
    Node,
    Retry,
    Skipped,
    Stop,
    amap,
    run,
    run_sync,
    stream,
)
from asyncflow.durability import SQLStore
from asyncflow.errors import ResumeMismatchError, RunStoppedError
from asyncflow.events import RunCompared, RunResumed

calls: list[Any] = []


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


async def double(number: int) -> int:
    calls.append(number)
    if number < 0:
        raise ValueError(number)
    return 2 * number


def test_amap_reads_back_what_it_has(tmp_path: Path) -> None:
    """The second call with the same run id calls nothing; new items run, in any order."""
    store = tmp_path / "runs.db"
    assert asyncio.run(amap(double, [1, 2, 3], store=store, run_id="a")) == [2, 4, 6]
    assert asyncio.run(amap(double, [3, 4, 1, 2], store=store, run_id="a")) == [6, 8, 2, 4]
    assert calls == [1, 2, 3, 4]
    asyncio.run(amap(double, [1], store=store, run_id="b"))
    assert calls == [1, 2, 3, 4, 1]


@pytest.mark.parametrize("wrong", [{"changed": "dropped"}, {"retry_failed": "no"}])
def test_a_word_that_is_none_of_those_known_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """Else "dropped" would keep what was to be dropped; nothing is opened or called."""
    store = tmp_path / "runs.db"
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}='.*': it is "):
        asyncio.run(amap(double, [1], store=store, run_id="a", **wrong))
    assert not calls and not store.exists()


def test_stream_reads_back_in_order_with_keys(tmp_path: Path) -> None:
    """The user's key finds an item again though its content has changed; it is the outcome's key."""

    async def work(row: dict[str, Any]) -> str:
        calls.append(row["id"])
        return row["text"].upper()

    async def main(text: str) -> list[tuple[Any, Any]]:
        rows = [{"id": f"row-{n}", "text": text} for n in range(3)]
        outcomes = stream(
            work, rows, ordered=True, store=tmp_path / "runs.db", run_id="s", key=lambda row: row["id"]
        )
        return [(outcome.key, outcome.value) async for outcome in outcomes]

    expected = [(f"row-{n}", "OLD") for n in range(3)]
    assert asyncio.run(main("old")) == expected
    assert asyncio.run(main("new")) == expected
    assert calls == ["row-0", "row-1", "row-2"]


def test_failed_items_run_again_unless_told_not_to(tmp_path: Path) -> None:
    """Failed is not done."""
    store = tmp_path / "runs.db"
    for retry_failed, expected in ((True, [-1, 1]), (True, [-1]), (False, [])):
        calls.clear()
        results = asyncio.run(
            amap(double, [1, -1], on_error="continue", store=store, run_id="f", retry_failed=retry_failed)
        )
        assert sorted(calls) == expected
        assert results[0] == 2
        assert isinstance(results[1], Failed)
        assert "-1" in str(results[1].error)


class Upper(AsyncParallelBatchNode):
    async def prep_async(self, shared: Any) -> Any:
        return shared["words"]

    async def exec_async(self, word: str) -> str:
        calls.append(word)
        await asyncio.sleep(0)
        return word.upper()

    async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
        shared["loud"] = exec_res
        return "join"


class Join(Node):
    def prep(self, shared: Any) -> Any:
        return shared["loud"]

    def exec(self, words: list[str]) -> str:
        calls.append("join")
        return " ".join(words)

    def post(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
        shared["text"] = exec_res


def shouting() -> AsyncFlow:
    upper = Upper()
    upper - "join" >> Join()
    return AsyncFlow(start=upper, name="Shouting")


def test_a_flow_resumes_node_by_node(tmp_path: Path) -> None:
    """prep and post run again, exec does not; the result says which run it was; observers hear of it."""
    store, heard = tmp_path / "runs.db", []
    first = run_sync(shouting(), {"words": ["a", "b"]}, store=store)
    assert first.run_id is not None and "shouting" in first.run_id
    assert calls == ["a", "b", "join"]
    again = run_sync(
        shouting(), {"words": ["a", "b"]}, store=store, run_id=first.run_id, observers=[heard.append]
    )
    assert calls == ["a", "b", "join"]
    assert again.shared["text"] == "A B" and again.statistics.recalled == 3
    [resumed] = [event for event in heard if isinstance(event, RunResumed)]
    assert resumed.found == "3 done and kept"


def test_a_changed_program_is_refused_and_may_be_told_what_to_do(tmp_path: Path) -> None:
    """The differences are listed; "keep" keeps the results, "drop" drops those of the changed node."""

    class Lower(Upper):
        async def exec_async(self, word: str) -> str:
            calls.append(word)
            return word.lower()

    def changed() -> AsyncFlow:
        node = Lower(name="Upper")
        node - "join" >> Join()
        return AsyncFlow(start=node, name="Shouting")

    store, shared = tmp_path / "runs.db", {"words": ["A", "b"]}
    for run_id in ("c", "d"):
        run_sync(shouting(), dict(shared), store=store, run_id=run_id)
    calls.clear()
    with pytest.raises(ResumeMismatchError, match="code of exec has changed"):
        run_sync(changed(), dict(shared), store=store, run_id="c")
    assert calls == []
    assert run_sync(changed(), dict(shared), store=store, run_id="c", changed="keep").shared["text"] == "A B"
    assert calls == []
    dropped = run_sync(changed(), dict(shared), store=store, run_id="d", changed="drop")
    assert (dropped.shared["text"], calls) == ("a b", ["A", "b", "join"])


@pytest.mark.parametrize(
    ("before", "after", "difference"),
    [("1", "1", None), ("1", "2", "double: version was 1, is 2")]
    + [({"prompt": "a", "model": "m"}, {"prompt": "b", "model": "m"}, "double: prompt was a, is b")],
)
def test_a_function_s_version_stands_for_its_code(
    tmp_path: Path, before: Any, after: Any, difference: str | None
) -> None:
    """With `version` its code may change and its version not; of several, the changed ones are named."""

    async def other(number: int) -> int:
        calls.append(number)
        return number

    other.__name__ = "double"
    settings: dict[str, Any] = {"store": tmp_path / "runs.db", "run_id": "v"}
    asyncio.run(amap(double, [1], version=before, **settings))
    if difference is None:
        assert asyncio.run(amap(other, [1], version=after, **settings)) == [2]
    else:
        with pytest.raises(ResumeMismatchError) as raised:
            asyncio.run(amap(other, [1], version=after, **settings))
        assert raised.value.differences == (difference,)
    assert calls == [1]


def test_a_version_stands_for_the_code(tmp_path: Path) -> None:
    """Where a node declares a version, its code may change and its version not."""

    def flow(node: type[Node], version: str) -> Flow:
        return Flow(start=node(name="N", version=version), name="F")

    class One(Node):
        def exec(self, prep_res: Any) -> int:
            return 1

    class Two(Node):
        def exec(self, prep_res: Any) -> int:
            return 2

    store = tmp_path / "runs.db"
    run_sync(flow(One, "1"), {}, store=store, run_id="v")
    with pytest.raises(ResumeMismatchError, match="kind was node One, is node Two"):
        run_sync(flow(Two, "1"), {}, store=store, run_id="v")
    Two.__name__ = "One"
    assert run_sync(flow(Two, "1"), {}, store=store, run_id="v").statistics.recalled == 1
    with pytest.raises(ResumeMismatchError, match="version was 1, is 2"):
        run_sync(flow(Two, "2"), {}, store=store, run_id="v")


def test_plain_flows_and_single_nodes_are_stored_too(tmp_path: Path) -> None:
    """A plain flow driven on the loop, a batch node in it, a node alone."""

    class Squares(BatchNode):
        def prep(self, shared: Any) -> Any:
            return range(4)

        def exec(self, number: int) -> int:
            calls.append(number)
            return number * number

        def post(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
            shared["squares"] = exec_res

    store = tmp_path / "runs.db"
    for flow, name in ((Flow(start=Squares()), "p"), (Squares(), "n")):
        calls.clear()
        for _ in range(2):
            result = asyncio.run(run(flow, store=store, run_id=name))
            assert result.shared["squares"] == [0, 1, 4, 9]
        assert calls == [0, 1, 2, 3]


def test_what_runs_inside_an_exec_is_part_of_it(tmp_path: Path) -> None:
    """An amap inside a recorded exec is not recorded by itself, and does not run again."""

    class Sums(AsyncNode):
        async def exec_async(self, prep_res: Any) -> int:
            return sum(await amap(double, range(3)))

        async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
            shared["sum"] = exec_res

    for _ in range(2):
        result = run_sync(AsyncFlow(start=Sums()), {}, store=tmp_path / "runs.db", run_id="i")
        assert result.shared["sum"] == 6
    assert calls == [0, 1, 2]


def test_how_a_session_ended_is_recorded(tmp_path: Path) -> None:
    """Stopped is not failed, and neither is cancelled."""
    store = SQLStore(tmp_path / "runs.db")

    async def ends(how: str) -> None:
        stop = Stop()

        async def work(item: int) -> int:
            if how == "failed":
                raise ValueError
            if how == "stopped":
                stop.request("enough")
            if how == "cancelled":
                task.cancel()
                await asyncio.sleep(1)
            return item

        task = asyncio.ensure_future(
            amap(work, range(3), concurrency=1, store=store, run_id="h", changed="keep", stop=stop)
        )
        with suppress(ValueError, RunStoppedError, asyncio.CancelledError):
            await task

    hows = ["stopped", "failed", "cancelled", "finished"]
    for how in hows:
        asyncio.run(ends(how))
    reader = store.open_reader()
    row = reader.run("h")
    reader.close()
    assert row is not None and [session.how for session in row.sessions] == hows


@pytest.mark.parametrize("door", ["amap", "stream", "node"])
def test_what_needed_a_second_attempt_is_read_back(tmp_path: Path, door: str) -> None:
    """Its result is recorded under its own key, with the attempts that it took."""
    store = SQLStore(tmp_path / "runs.db")

    async def work(item: int) -> int:
        calls.append(item)
        if calls.count(item) == 1:
            raise OSError(item)
        return 10 * item

    class Works(AsyncParallelBatchNode):
        retry = Retry(attempts=3, wait=0.001)

        async def prep_async(self, shared: Any) -> Any:
            return range(5)

        async def exec_async(self, item: int) -> int:
            return await work(item)

        async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
            shared["out"] = exec_res

    async def go() -> Any:
        options: Any = {"retry": Works.retry, "store": store, "run_id": "r"}
        if door == "amap":
            return await amap(work, range(5), **options)
        if door == "stream":
            return [outcome.value async for outcome in stream(work, range(5), ordered=True, **options)]
        return (await run(AsyncFlow(start=Works()), {}, store=store, run_id="r")).shared["out"]

    for _ in range(2):
        assert asyncio.run(go()) == [0, 10, 20, 30, 40]
        assert sorted(calls) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    reader = store.open_reader()
    assert [record.attempts for _, record in reader.following(1, 0, 100) if record.kind == 0] == [2] * 5
    reader.close()


def events_of(kind: type, heard: list[Any]) -> list[Any]:
    return [event for event in heard if isinstance(event, kind)]


@pytest.mark.parametrize("door", ["amap", "stream"])
def test_a_resume_counts_first_and_compares_at_the_end(tmp_path: Path, door: str) -> None:
    """Of how many, where the source tells its length; new and vanished items once it is at its end."""

    def go(items: Any, **options: Any) -> tuple[str | None, tuple[int, int] | None]:
        heard: list[Any] = []
        settings: dict[str, Any] = {"on_error": "continue", "observers": [heard.append], **options}
        settings |= {"store": tmp_path / "runs.db", "run_id": "r"}

        async def main() -> None:
            if door == "amap":
                await amap(double, items, **settings)
            else:
                async for _ in stream(double, items, **settings):
                    pass

        asyncio.run(main())
        resumed, compared = events_of(RunResumed, heard), events_of(RunCompared, heard)
        found = (compared[0].new, compared[0].vanished) if compared else None
        return (resumed[0].found if resumed else None), found

    assert go([1, 2, -1, 3]) == (None, None)
    assert go([1, 2, -1, 3, 4, 5]) == (
        "3 of 6 done and kept, 1 failed will be retried, 2 not started",
        (2, 0),
    )
    assert go(iter([5, 4, 9])) == ("5 done and kept, 1 failed will be retried", (1, 4))
    assert go([9], retry_failed=False) == (
        "6 done and kept, 1 failed stay failed, the input has 1 now",
        (0, 6),
    )


def test_only_failed_items_run(tmp_path: Path) -> None:
    """Results are read back, failures run again, and what has no record is left; a new run is refused."""
    options: dict[str, Any] = {"on_error": "continue", "store": tmp_path / "runs.db", "run_id": "r"}
    with pytest.raises(ValueError, match="no run 'r'"):
        asyncio.run(amap(double, [1], retry_failed="only", **options))
    asyncio.run(amap(double, [1, -1], **options))
    calls.clear()
    results = asyncio.run(amap(double, [7, 1, -1, 8], retry_failed="only", **options))
    assert calls == [-1]
    assert [type(each) for each in results] == [Skipped, int, Failed, Skipped]
    assert results[0].reason == "not failed" and results[0].item == 7
    with pytest.raises(ValueError, match="amap and stream"):
        run_sync(shouting(), {"words": []}, store=tmp_path / "runs.db", retry_failed="only")  # type: ignore[arg-type]


def test_run_sync_says_what_it_goes_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, first; of a new run nothing, and `run` writes nothing at all."""
    options: dict[str, Any] = {"store": tmp_path / "runs.db", "run_id": "r"}
    run_sync(shouting(), {"words": ["a"]}, **options)
    assert capsys.readouterr().err == ""
    run_sync(shouting(), {"words": ["a", "b"]}, **options)
    assert capsys.readouterr().err == "asyncflow: run r goes on: 2 done and kept\n"
    asyncio.run(run(shouting(), {"words": ["a", "b"]}, **options))
    assert capsys.readouterr().err == ""


def test_what_was_dropped_is_not_said_to_be_kept(tmp_path: Path) -> None:
    """The banner of the session that drops it."""
    heard: list[Any] = []

    async def other(number: int) -> int:
        return number

    other.__name__ = "double"
    options: dict[str, Any] = {"store": tmp_path / "runs.db", "run_id": "r"}
    asyncio.run(amap(double, [1, 2], **options))
    asyncio.run(amap(other, [1, 2, 3], changed="drop", observers=[heard.append], **options))
    [resumed] = events_of(RunResumed, heard)
    assert resumed.found == "0 of 3 done and kept, 3 not started, 2 dropped"
