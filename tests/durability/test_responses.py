"""`ResponseCache`: time to live, room, other users of the store, and everything that can go wrong."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asyncflow import amap
from asyncflow.clock import FakeClock
from asyncflow.durability import MemoryStore, ResponseCache, SQLStore, outbox, writer
from asyncflow.durability.responses import _digest
from asyncflow.errors import StoreError, StoreFormatError, StoreLockedError


@pytest.fixture(autouse=True)
def nothing_left_open() -> Any:
    """After every test no store is open for writing in this process."""
    yield
    assert not writer._shared


def test_it_is_there_after_the_process(run: Any, tmp_path: Path) -> None:
    """What was put is committed when the block ends, and found by the next one."""

    async def main() -> None:
        async with ResponseCache(tmp_path / "r.db") as cache:
            for n in range(50):
                await cache.put(str(n), n)
        assert (cache.statistics().kept, cache.statistics().waiting) == (50, 0)
        async with ResponseCache(tmp_path / "r.db") as cache:
            assert [await cache.get(str(n)) for n in range(51)] == [*range(50), None]
            assert (await cache.size())[0] == 50
            assert (cache.statistics().hits, cache.statistics().misses) == (50, 1)
            await cache.put("more", 1)
            await cache.clear()
            assert await cache.size() == (0, 0) and await cache.get("more") is None

    run(main)


@pytest.mark.parametrize("settings", [{"time_to_live": 0}, {"time_to_live": float("nan")}, {"most": 0}])
def test_settings_that_are_none(settings: dict[str, Any]) -> None:
    """Refused where they are written."""
    with pytest.raises(ValueError, match="time_to_live|most"):
        ResponseCache(MemoryStore(), **settings)


def test_time_to_live(run: Any, tmp_path: Path) -> None:
    """By the calendar; the shorter of that of the writer and that of the reader; expired ones are deleted."""

    async def main() -> None:
        path = tmp_path / "r.db"
        with FakeClock(autojump=False) as clock:
            async with ResponseCache(path, time_to_live=100) as short, ResponseCache(path) as long:
                await short.put("short", 1)
                await long.put("long", 2)
                clock.jump(60)
                assert [await long.get("long"), await short.get("short")] == [2, 1]
                await long.size()  # written, so that it is read from the store
                async with ResponseCache(path, time_to_live=50) as young:
                    assert await young.get("long") is None
                clock.jump(40)
                assert [await long.get("short"), await short.get("short")] == [None, None]
                await short.put("short", 3)  # lives again
                assert await short.get("short") == 3
                clock.jump(200)
                await long.sweep()
                assert (await long.size())[0] == 1
                await short.put("short", 4)
            clock.jump(200)
            async with ResponseCache(path) as later:
                assert (await later.size())[0] == 1 and await later.get("long") == 2

    run(main)


@pytest.mark.asyncio
async def test_most_leaves_the_newest(tmp_path: Path) -> None:
    """No more answers than that are left."""
    async with ResponseCache(tmp_path / "r.db", most=10) as cache:
        for n in range(100):
            await cache.put(str(n), n)
            if n > 85:
                await cache.size()  # written by now
        assert (await cache.size())[0] == 10
        assert [await cache.get(str(n)) for n in (89, 90, 99)] == [None, 90, 99]


@pytest.mark.asyncio
async def test_the_file_of_a_run(tmp_path: Path) -> None:
    """A run's store and a cache share a file in one process, whichever is opened first."""
    path = str(tmp_path / "runs.db")

    async def step(n: int) -> Any:
        if (found := await cache.get(str(n))) is None:
            await cache.put(str(n), n * 2)
        return found or n * 2

    for run_id in ("a", "b"):
        async with ResponseCache(path) as cache:
            assert await amap(step, range(30), store=path, run_id=run_id) == [n * 2 for n in range(30)]
    assert cache.statistics().hits == 30

    async def inside(n: int) -> Any:
        async with ResponseCache(path) as own:
            return await own.get(str(n))

    assert await amap(inside, range(1, 9), store=path, run_id="c") == [n * 2 for n in range(1, 9)]


@pytest.mark.asyncio
async def test_a_store_that_another_process_writes_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its answers are read, none is kept, and a warning names the holder; nothing can be deleted."""
    store = SQLStore(tmp_path / "r.db")
    for kept in (False, True):
        holder = store.open_writer()  # the lock does not ask who in the process holds it
        if kept:
            holder.close()
            async with ResponseCache(store) as cache:
                await cache.put("a", 1)
            holder = store.open_writer()
        try:
            async with ResponseCache(store) as cache:
                assert await cache.get("a") == (1 if kept else None)
                await cache.put("b", 2)
                assert await cache.get("b") is None and cache.statistics().reads_only
                with pytest.raises(StoreLockedError, match="nothing was deleted"):
                    await cache.clear()
        finally:
            holder.close()
    assert "none is kept" in caplog.text and f"process {os.getpid()}" in caplog.text


@pytest.mark.asyncio
async def test_what_cannot_be_opened_is_told_at_the_door(tmp_path: Path) -> None:
    """A foreign file is left alone; a directory that is not there; the next opening works."""
    path = tmp_path / "r.db"
    path.write_bytes(b"a diary" * 100)
    cache = ResponseCache(path)
    with pytest.raises(StoreFormatError, match="not a SQLite file"):
        await cache.__aenter__()
    assert path.read_bytes() == b"a diary" * 100
    with pytest.raises(StoreError, match="no directory"):
        await ResponseCache(tmp_path / "none" / "r.db").__aenter__()
    with pytest.raises(RuntimeError, match="not open"):
        await cache.get("a")
    path.unlink()
    async with cache:
        assert await cache.get("a") is None


@pytest.mark.asyncio
async def test_writes_that_fail(caplog: pytest.LogCaptureFixture) -> None:
    """What waited is let go and counted, a warning is given once, and later answers are kept."""
    store = MemoryStore()
    async with ResponseCache(store) as cache:
        for n in range(3):
            store.failures.append(OSError(28, "No space left on device"))
            await cache.put(str(n), n)
            await cache.size()
        await cache.put("3", 3)
        await cache.size()
        assert [await cache.get(str(n)) for n in range(4)] == [None, None, None, 3]
    assert (cache.statistics().lost, cache.statistics().kept) == (3, 1)
    assert caplog.text.count("No space left") == 1


@pytest.mark.asyncio
async def test_damaged_rows(tmp_path: Path) -> None:
    """A changed byte, text that is none, and no JSON: None, and the answers beside them are given."""
    path = tmp_path / "r.db"
    async with ResponseCache(path) as cache:
        for n in range(10):
            await cache.put(str(n), {"n": n})
    with sqlite3.connect(path) as connection:
        spoil = "UPDATE answers SET data = ? WHERE key = ?"
        connection.execute(spoil, (b'{"n":9}', _digest("0")))
        connection.execute(spoil, (b"\xff\x00\xff", _digest("1")))
    connection.close()
    async with ResponseCache(path) as cache:
        found: dict[int, Any] = {}

        async def ask(n: int) -> None:
            found[n] = await cache.get(str(n))

        async with anyio.create_task_group() as group:
            for n in range(10):
                group.start_soon(ask, n)
        assert found == {n: None if n < 2 else {"n": n} for n in range(10)}
        await cache.put("0", {"n": 0})
        assert await cache.get("0") == {"n": 0}


@pytest.mark.asyncio
async def test_puts_are_committed_together_and_never_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk is busy a thousand answers gather, are found, and make one group; past the room for
    them they are let go, so memory stays flat."""
    monkeypatch.setattr(outbox, "WAITING_BYTES", 40_000)
    store = MemoryStore()
    async with ResponseCache(store) as cache:
        shared = writer.share(store)
        groups: list[int] = []
        go, entered = threading.Event(), threading.Event()

        def busy(backend: Any) -> None:
            keep = backend.keep_answers
            monkeypatch.setattr(
                backend, "keep_answers", lambda answers, most: (groups.append(len(answers)), keep(answers))
            )
            entered.set()
            assert go.wait(20)

        thread = threading.Thread(target=shared.call, args=(busy,))
        thread.start()
        assert entered.wait(20)
        for n in range(1000):
            await cache.put(str(n), "x" * 18)
        for n in range(1000):
            await cache.put(str(n), "y" * 18)  # in the place of those that wait
        assert cache.statistics().waiting == 1000 and await cache.get("999") == "y" * 18
        for n in range(2000, 3010):
            await cache.put(str(n), "x" * 18)
        assert cache.statistics().lost == 10
        go.set()
        thread.join()
        await cache.size()
        writer.unshare(store, shared)
        assert groups == [2000] and cache.statistics().kept == 2000


@pytest.mark.asyncio
async def test_cancelled_anywhere(tmp_path: Path) -> None:
    """Cancelled while it opens, reads or closes, it leaves no store open and no caller waiting."""

    async def use() -> None:
        async with ResponseCache(tmp_path / "r.db") as cache:
            await cache.put("a", 1)
            await cache.get("b")
            await cache.size()

    for steps in range(40):
        task = asyncio.create_task(use())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert not writer._shared


@pytest.mark.parametrize("phase", range(5))
def test_cancelled_in_every_phase(run: Any, tmp_path: Path, phase: int) -> None:
    """A task group that cancels while it opens, reads, counts or closes finds no store open afterwards."""
    reached = 0

    async def use() -> None:
        nonlocal reached
        async with ResponseCache(tmp_path / "r.db") as cache:
            reached = 1
            await cache.put("a", 1)
            await cache.get("b")
            reached = 2
            await cache.size()
            reached = 3
        reached = 4

    async def main() -> None:
        nonlocal reached
        for steps in range(8):
            reached = 0
            async with anyio.create_task_group() as group:
                group.start_soon(use)
                while reached < phase:
                    await anyio.lowlevel.checkpoint()
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            assert not writer._shared

    run(main)


def test_two_loops_share_one(tmp_path: Path) -> None:
    """One object serves the loops of several threads; the last one that leaves closes it."""
    cache = ResponseCache(tmp_path / "r.db")
    found: list[list[Any]] = []
    both = threading.Barrier(2)

    async def main(mine: int, other: int) -> None:
        async with cache:
            for n in range(50):
                await cache.put(f"{mine} {n}", n)
            await asyncio.to_thread(both.wait, 20)
            found.append(await asyncio.gather(*(cache.get(f"{other} {n}") for n in range(50))))

    threads = [threading.Thread(target=asyncio.run, args=(main(*pair),)) for pair in ((0, 1), (1, 0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [list(range(50))] * 2


def test_a_forked_child_leaves_it_alone(tmp_path: Path) -> None:
    """It finds nothing and keeps nothing, and the parent goes on."""

    async def main() -> None:
        async with ResponseCache(tmp_path / "r.db") as cache:
            await cache.put("a", 1)
            await cache.size()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if child == 0:
                status = 1
                try:
                    coroutine = cache.get("a")
                    try:
                        coroutine.send(None)
                    except StopIteration as done:
                        status = 0 if done.value is None else 2
                finally:
                    os._exit(status)
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            assert status == 0 and await cache.get("a") == 1

    asyncio.run(main())


_CHILD = """
import asyncio, random, sys
from asyncflow.durability import ResponseCache

async def main():
    numbers = list(range(500))
    random.Random(sys.argv[2]).shuffle(numbers)
    async with ResponseCache(sys.argv[1], most=10_000) as cache:
        for n in numbers:
            await cache.put(str(n), n)
            if n % 10 == 0:
                await asyncio.sleep(0)
        for n in numbers:
            assert await cache.get(str(n)) == n
    print(cache.statistics().lost, cache.statistics().kept >= 500, cache.statistics().reads_only)

asyncio.run(main())
"""


def test_two_processes_keep_the_same_answers_on_postgres(postgres_url: str) -> None:
    """Opened in the same moment, writing the same keys in another order: nothing is lost, nobody waits."""
    children = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _CHILD, postgres_url, seed],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in "abc"
    ]
    said = [child.communicate(timeout=50) for child in children]
    assert said == [("0 True False\n", "")] * 3


_KILLED = """
import asyncio, itertools, sys
from asyncflow.durability import ResponseCache

async def main():
    async with ResponseCache(sys.argv[1]) as cache:
        for n in itertools.count():
            await cache.put(str(n), n)
            if n % 10 == 0:
                await asyncio.sleep(0)
            if n == 1000:
                await cache.size()  # these are written
                print("now", flush=True)

asyncio.run(main())
"""


def test_a_killed_process_leaves_whole_answers(tmp_path: Path) -> None:
    """After SIGKILL in the middle of writing, what was written is there, and every answer is right."""
    child = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(tmp_path / "r.db")], stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None and child.stdout.readline() == "now\n"
        child.kill()

    async def main() -> None:
        async with ResponseCache(tmp_path / "r.db") as cache:
            found = [await cache.get(str(n)) for n in range(2000)]
            assert found[:1001] == list(range(1001))
            assert all(value in (None, n) for n, value in enumerate(found))

    asyncio.run(main())
