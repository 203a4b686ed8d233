"""A run recorded, left and taken up again, as the engine would."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from asyncflow.durability import MemoryStore, SQLStore, Store, as_store, open_journal, open_run
from asyncflow.durability.journal import RunJournal
from asyncflow.durability.marks import Mark
from asyncflow.durability.place import RunPlace
from asyncflow.engine.driver import BlockingHost, drive
from asyncflow.engine.hosts import running_host
from asyncflow.engine.journal import Journal, Place
from asyncflow.errors import (
    DuplicateKeyError,
    NotStorableError,
    RecordedError,
    ResumeMismatchError,
    StoreError,
    StoreLockedError,
)
from asyncflow.outcome import Failed, Ok


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore()
    return as_store(
        request.getfixturevalue("postgres_url") if request.param == "postgres" else tmp_path / "runs.db"
    )


def place_of(
    journal: RunJournal, path: tuple[str, ...] = ("node",), visit: int = 0, **options: Any
) -> RunPlace:
    options = {"key": None, "result_type": None, **options}
    return journal.place(path, visit, running_host(), **options)


async def commit(place: RunPlace, key: bytes, outcome: Ok[Any] | Failed) -> None:
    """Wait for the commit, as a worker does."""
    told = asyncio.get_running_loop().create_future()
    place.commit(
        key, outcome, lambda error: told.set_result(None) if error is None else told.set_exception(error)
    )
    await told


async def work(place: RunPlace, items: list[Any], step: Callable[[Any], Any]) -> list[Any]:
    """Each item: recalled, or run and committed. Returns (item, value, was recalled)."""
    found = []
    for index, item in enumerate(items):
        key = place.key_of(item)
        outcome = await place.recall(key) if place.has_records else None
        recalled = outcome is not None
        if outcome is None:
            place.begin(key)
            try:
                outcome = Ok(step(item), index=index, item=item)
            except ValueError as exc:
                outcome = Failed(exc, index=index, item=item, traceback="line 1")
            await commit(place, key, outcome)
        found.append((item, outcome.value if isinstance(outcome, Ok) else outcome, recalled))
    return found


def test_it_is_what_the_engine_asks_for(store: Store) -> None:
    """The engine's protocols, structurally."""
    with open_run(store, "a") as journal:
        known: Journal = journal
        place: Place = known.place(("n",), 0, BlockingHost(), key=None, result_type=None)
        assert place.has_records is False


async def resumed(store: Store) -> None:
    items = [f"item {n}" for n in range(300)]
    async with open_journal(store, "a") as journal:
        assert not journal.resumed
        assert all(not again for _, _, again in await work(place_of(journal), items[:200], str.upper))
    async with open_journal(store, "a") as journal:
        assert journal.resumed and journal.counts.done == 200
        mixed = ["new first", *items[:100][::-1], *items[100:]]
        found = await work(place_of(journal), mixed, str.upper)
        assert [value for _, value, _ in found] == [item.upper() for item in mixed]
        assert [item for item, _, again in found if not again] == ["new first", *items[200:]]
    async with open_journal(store, "a") as journal:
        assert journal.counts.done == 301
        assert all(again for _, _, again in await work(place_of(journal), items, str.upper))
    async with open_journal(store, "b") as journal:
        assert not any(again for _, _, again in await work(place_of(journal), items[:3], str.upper))


@pytest.mark.asyncio
async def test_what_is_recorded_is_not_run_again(store: Store) -> None:
    """Inserting and reordering rows redoes nothing; another run knows nothing of it."""
    await resumed(store)


def test_it_works_on_trio(tmp_path: Path) -> None:
    """Recording and recalling on trio's loop."""
    store = SQLStore(tmp_path / "runs.db")

    async def main(expected: bool) -> None:
        async with open_journal(store, "a") as journal:
            host = running_host()
            place = journal.place(("n",), 0, host, key=None, result_type=None)
            key = place.key_of("x")
            outcome = await place.recall(key)
            assert (outcome is not None) is expected
            if outcome is None:
                waker = host.waker()
                place.commit(key, Ok([1]), lambda error: waker.set())
                await waker.wait()
            else:
                assert outcome == Ok([1])

    trio.run(main, False)
    trio.run(main, True)


def test_it_works_without_a_loop(store: Store) -> None:
    """A synchronous flow is driven, records and recalls by the blocking host."""

    def once() -> Any:
        with open_run(store, "a") as journal:
            host = BlockingHost()
            place = journal.place(("n",), 0, host, key=None, result_type=None)

            async def main() -> Any:
                key = place.key_of_single({"prep": 1})
                outcome = await place.recall(key)
                if outcome is None:
                    waker = host.waker()
                    place.begin(key)
                    place.commit(key, Ok("v", attempts=3), lambda error: waker.set())
                    await waker.wait()
                return outcome

            return drive(host, main())

    assert once() is None
    assert once() == Ok("v", attempts=3)


@pytest.mark.asyncio
async def test_a_plain_node_runs_again_where_prep_returned_something_else(store: Store) -> None:
    """The key holds what `prep` returned; both results stay known."""
    for prep, known in (("a", False), ("b", False), ("a", True), ("b", True)):
        async with open_journal(store, "r") as journal:
            place = place_of(journal)
            key = place.key_of_single(prep)
            outcome = await place.recall(key)
            assert (outcome is not None) is known
            if outcome is None:
                await commit(place, key, Ok(prep * 2))


@pytest.mark.asyncio
async def test_failed_is_not_done(store: Store) -> None:
    """A failure runs again, unless told to keep it; then it comes back as text with its kind."""

    def step(item: int) -> int:
        if item == 1:
            raise ValueError("bad")
        return item

    async with open_journal(store, "a") as journal:
        await work(place_of(journal), [0, 1, 2], step)
    async with open_journal(store, "a", retry_failed=False) as journal:
        assert (journal.counts.done, journal.counts.failed) == (2, 1)
        failed = (await work(place_of(journal), [0, 1, 2], step))[1][1]
        assert isinstance(failed.error, RecordedError) and failed.error.kind == "ValueError"
        assert str(failed.error) == "ValueError: bad" and failed.traceback == "line 1"
    async with open_journal(store, "a") as journal:
        found = await work(place_of(journal), [0, 1, 2], lambda item: item)
        assert [again for _, _, again in found] == [True, False, True]
    async with open_journal(store, "a") as journal:
        assert (journal.counts.done, journal.counts.failed) == (3, 0)
        assert all(again for _, _, again in await work(place_of(journal), [0, 1, 2], step))


@pytest.mark.asyncio
async def test_a_replayed_action_must_be_the_recorded_one(store: Store) -> None:
    """Where all results were recalled, another action is refused; else it is recorded."""
    async with open_journal(store, "a") as journal:
        place = place_of(journal)
        await work(place, [1], str)
        place.acted("left")
    async with open_journal(store, "a") as journal:
        place = place_of(journal)
        await work(place, [1], str)
        place.acted("left")
    async with open_journal(store, "a") as journal:
        place = place_of(journal)
        await work(place, [1], str)
        with pytest.raises(ResumeMismatchError, match=r"node: post returned 'right' .* 'left'"):
            place.acted("right")
    async with open_journal(store, "a") as journal:
        place = place_of(journal)
        await work(place, [1, 2], str)
        place.acted("right")
    async with open_journal(store, "a") as journal:
        place = place_of(journal)
        await work(place, [1, 2], str)
        with pytest.raises(ResumeMismatchError):
            place.acted("left")


@dataclass
class Result:
    x: int


@pytest.mark.asyncio
async def test_a_value_that_could_not_come_back_is_refused_when_recorded(store: Store) -> None:
    """With node, item, type and what to do; declared, it is restored; undeclared later, it is told."""
    async with open_journal(store, "a") as journal:
        place = place_of(journal)
        with pytest.raises(
            NotStorableError, match=r"node: the result of item 4 \(row\).*Result.*result_type"
        ):
            place.commit(place.key_of("row"), Ok([Result(1)], index=4, item="row"), lambda error: None)
        await work(place_of(journal, ("typed",), result_type=list[Result]), ["row"], lambda item: [Result(1)])
    async with open_journal(store, "a") as journal:
        typed = place_of(journal, ("typed",), result_type=list[Result])
        assert (await work(typed, ["row"], str))[0][1] == [Result(1)]
    async with open_journal(store, "a") as journal:
        with pytest.raises(ResumeMismatchError, match="Result"):
            await work(place_of(journal, ("typed",)), ["row"], str)


@pytest.mark.asyncio
async def test_the_users_key_is_the_identity(store: Store) -> None:
    """The content may change without running again; the same key twice is refused."""
    by_id = {"key": lambda item: item["id"]}
    async with open_journal(store, "a") as journal:
        await work(place_of(journal, **by_id), [{"id": 1, "v": 1}], lambda item: item["v"])
    async with open_journal(store, "a") as journal:
        place = place_of(journal, **by_id)
        assert await work(place, [{"id": 1, "v": 2}], lambda item: item["v"]) == [
            ({"id": 1, "v": 2}, 1, True)
        ]
        with pytest.raises(DuplicateKeyError):
            place.key_of({"id": 1})


@pytest.mark.asyncio
async def test_a_store_in_trouble_reaches_every_waiting_item() -> None:
    """`committed` gets the StoreError; leaving the block raises it too, if nothing else was raised."""
    store = MemoryStore()
    with pytest.raises(StoreError, match="damaged"):
        async with open_journal(store, "a") as journal:
            place = place_of(journal)
            store.failures = [ValueError("damaged")]
            with pytest.raises(StoreError, match="damaged"):
                await commit(place, place.key_of(1), Ok(1))
    assert store.holder() is None


@pytest.mark.asyncio
async def test_how_a_session_ended_is_kept(store: Store) -> None:
    """Finished, failed by an exception, cancelled."""
    async with open_journal(store, "a"):
        pass
    with pytest.raises(ZeroDivisionError):
        async with open_journal(store, "a"):
            raise ZeroDivisionError
    with pytest.raises(asyncio.CancelledError):
        async with open_journal(store, "a"):
            raise asyncio.CancelledError
    reader = store.open_reader()
    row = reader.run("a")
    reader.close()
    assert row is not None and [each.how for each in row.sessions] == ["finished", "failed", "cancelled"]


@pytest.mark.asyncio
async def test_items_that_saw_deaths_are_under_suspicion(tmp_path: Path) -> None:
    """In flight at three deaths: alone; at a lone one after that: quarantined; with a result: acquitted."""
    store = SQLStore(tmp_path / "runs.db")
    keys = {}
    for death in range(4):
        async with open_journal(store, "a") as journal:
            place = place_of(journal)
            keys = {item: place.key_of(item) for item in ("killer", "bystander", "other")}
            marks = [Mark(keys["killer"], place._keys.place, journal.session, 1)]
            if death < 3:
                marks += [
                    Mark(keys[item], place._keys.place, journal.session, 1) for item in ("bystander", "other")
                ]
            if death == 2:
                await commit(place, keys["other"], Ok(1))
            journal._writer.call(lambda backend, marks=marks: backend.bury(marks))
    async with open_journal(store, "a") as journal:
        place = place_of(journal)
        assert [place.verdict(keys[item]) for item in keys] == ["quarantine", "alone", "run"]
        assert (journal.counts.suspects, journal.counts.in_flight) == (2, 1)


@pytest.mark.asyncio
async def test_shuffled_and_vanished_items_are_found_by_key(tmp_path: Path) -> None:
    """Whatever the order, every record is found, and reading ahead keeps little in hand."""
    import random

    store, items = SQLStore(tmp_path / "runs.db"), list(range(3000))
    async with open_journal(store, "a") as journal:
        place = place_of(journal)
        async with asyncio.TaskGroup() as group:
            for item in items:
                group.create_task(commit(place, place.key_of(item), Ok(item)))
    for order in (items[2500:], random.Random(1).sample(items, 400), items[::-1][:600]):
        async with open_journal(store, "a") as journal:
            found = await work(place_of(journal), order, lambda item: pytest.fail("was recorded"))
            assert [value for _, value, _ in found] == order
            assert journal._recall is not None
            assert len(journal._recall._ahead) + len(journal._recall._before) <= 2048
    async with open_journal(store, "a") as journal:
        await work(place_of(journal), items, str)
        assert journal.statistics().questions <= 3


@pytest.mark.asyncio
async def test_a_second_process_of_the_run_is_refused_and_two_runs_share(tmp_path: Path) -> None:
    """Two journals of one file in one process share its writer; a second writer of the file cannot be had."""
    store = SQLStore(tmp_path / "runs.db")
    async with open_journal(store, "a") as one, open_journal(str(tmp_path / "runs.db"), "b") as two:
        await work(place_of(one), [1, 2], str)
        await work(place_of(two), [1], str)
        assert one._writer is two._writer
        with pytest.raises(StoreLockedError):
            store.open_writer()
    async with open_journal(store, "b") as journal:
        assert journal.counts.done == 1
