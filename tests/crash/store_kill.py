"""The kill loop: a program that is killed again and again and must come out right. Run by test_store_kill.py.

    python -m tests.crash.store_kill WHERE KILLS SEED [POINT]

WHERE is an empty directory, for a SQLite file, or the URL of a PostgreSQL database without a store.

Each round forks a child that works through the items on a journal and tells over a pipe what it runs (`x`)
and what it was told is durable (`a`). The parent kills it after a random number of words, or the child kills
itself at a named point. After the last round a child finishes, and everything is counted.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from asyncflow.durability import Store, as_store, open_journal
from asyncflow.durability.lock import Lock
from asyncflow.durability.marks import FileMarks
from asyncflow.durability.postgres.marks import TableMarks
from asyncflow.durability.postgres.site import Site
from asyncflow.durability.recall import Recall
from asyncflow.durability.runs import status
from asyncflow.durability.sqlreader import SQLReader
from asyncflow.durability.sqlwriter import SQLWriter
from asyncflow.engine.hosts import running_host
from asyncflow.errors import StoreError
from asyncflow.outcome import Ok

ITEMS, CONCURRENCY = 400, 16

#: Point -> what is wrapped, and whether the child dies before or after it.
POINTS: dict[str, tuple[Any, str, bool]] = {
    "before commit": (SQLWriter, "append", True),
    "after commit": (SQLWriter, "append", False),
    "inside group": (SQLWriter, "_add", False),
    "before the first mark": (FileMarks, "set", True),
    "opening, lock taken": (Lock, "soil", True),
    "opening, session begun": (SQLWriter, "start", False),
    "during resume, by key": (SQLReader, "find", False),
    "during resume, reading on": (Recall, "_read_on", False),
    "closing, session ended": (SQLWriter, "end", False),
    "closing, marks still there": (FileMarks, "remove", True),
    "closing, lock still held": (Lock, "release", True),
}
#: Those that are not the same on a server.
ON_SERVER: dict[str, tuple[Any, str, bool]] = {
    "run claimed": (Site, "claim", False),
    "marks written": (TableMarks, "_write", False),
    "after commit": (SQLWriter, "append", False),
    "closing, session ended": (SQLWriter, "end", False),
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def armed(point: str, countdown: int) -> None:
    """Die at the `countdown`-th passing of a point."""
    owner, name, before = {**POINTS, **ON_SERVER}[point]
    original: Callable[..., Any] = getattr(owner, name)
    left = [countdown]

    def wrapped(*args: Any, **options: Any) -> Any:
        left[0] -= 1
        if before and left[0] == 0:
            die()
        value = original(*args, **options)
        if not before and left[0] == 0:
            die()
        return value

    setattr(owner, name, wrapped)


async def work(store: Store, say: Callable[[str], None]) -> None:
    async with open_journal(store, "run") as journal:
        host, loop = running_host(), asyncio.get_running_loop()
        place = journal.place(("node",), 0, host, key=None, result_type=None)
        source = iter(range(ITEMS))

        async def worker() -> None:
            for item in source:
                key = place.key_of(item)
                known = await place.recall(key) if place.has_records else None
                if known is not None:
                    assert known == Ok(f"result {item}"), known
                    continue
                place.begin(key)
                say(f"x{item}")
                await asyncio.sleep(0)
                told = loop.create_future()
                place.commit(key, Ok(f"result {item}", index=item), told.set_result)
                assert await told is None
                say(f"a{item}")

        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(worker())


def child(store: Store, pipe: int, point: str | None, countdown: int) -> None:
    """Never returns."""
    code = 1
    try:
        if point is not None:
            armed(point, countdown)
        asyncio.run(work(store, lambda word: os.write(pipe, f"{word}\n".encode()) and None))
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def round_(store: Store, point: str | None, countdown: int, words: int | None) -> tuple[list[str], int]:
    """One child: what it said, and how it ended (0, or minus the signal)."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        child(store, write, point, countdown)
    os.close(write)
    data = b""
    while part := os.read(read, 4096):
        data += part
        if words is not None and data.count(b"\n") >= words:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    os.close(read)
    return data.decode().splitlines(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(where: str, kills: int, seed: int, point: str | None) -> None:
    draw, on_server = random.Random(seed), "://" in where
    store = as_store(where if on_server else f"{where}/runs.db")
    runs: Counter[str] = Counter()
    durable: set[str] = set()
    deaths = 0
    for turn in range(kills):
        words = None if point else draw.randrange(1, 2 * ITEMS // kills + 2)
        if point is not None and point.startswith("during resume") and turn == 0:
            said, end = round_(store, None, 0, ITEMS)  # something to resume
        else:
            said, end = round_(
                store, point, draw.randrange(1, 4) if point is None or " " in point else 1, words
            )
        assert end in (0, -signal.SIGKILL), (end, said[-3:])
        deaths += end != 0
        again = {word[1:] for word in said if word[0] == "x"}
        assert not again & durable, f"run again though told durable: {again & durable}"
        runs.update(again)
        durable |= {word[1:] for word in said if word[0] == "a"}
        while on_server and store.holder() is not None:
            pass  # until the server has seen the end of the connection
        assert store.holder() is None
        try:
            reader = store.open_reader()
        except StoreError as exc:  # killed before there was one
            assert "there is no store" in str(exc), exc
        else:
            row = reader.run("run")
            assert row is None or status(row, held=False) in ("interrupted", "finished")
            number = 0 if row is None else row.number
            found = {str(record.position) for _, record in reader.following(number, 0, 10_000)}
            assert durable <= found, f"lost: {durable - found}"
            reader.close()
    said, end = round_(store, None, 0, None)
    assert end == 0, said[-3:]
    last = {word[1:] for word in said if word[0] == "x"}
    assert not last & durable
    runs.update(last)
    if not on_server:
        left = {each.name for each in Path(where).iterdir()}
        assert left <= {"runs.db", "runs.db.lock", "runs.db-wal", "runs.db-shm"}, left
    reader = store.open_reader()
    row = reader.run("run")
    assert row is not None
    records = [record for _, record in reader.following(row.number, 0, 10_000)]
    reader.close()
    assert sorted(record.position for record in records) == list(range(ITEMS))
    assert all(record.data == b'"result %d"' % record.position for record in records)
    assert sum(runs.values()) <= ITEMS + deaths * CONCURRENCY, (sum(runs.values()), deaths)
    print(f"deaths={deaths} calls={sum(runs.values())}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] if len(sys.argv) > 4 else None)
