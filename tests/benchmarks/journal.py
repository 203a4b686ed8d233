"""What a durable run costs: the journal alone, called as the engine calls it, with results of 500 bytes.

    python -m tests.benchmarks.journal [--items N] [--rounds N] [--json]

Nothing else is in the figures: the items do nothing, and the same pool without a journal is the base that is
taken off. Group commit stands beside one commit per item of the same store, in the same rounds. PostgreSQL is
a server of its own on this machine's loopback, with its defaults (`fsync` and `synchronous_commit` on); where
there is none, its rows are missing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from asyncflow.durability import MemoryStore, SQLStore, as_store, open_journal
from asyncflow.engine.hosts import running_host
from asyncflow.outcome import Ok
from tests.benchmarks.measure import Case, Row, environment, interleave, table
from tests.postgres_server import NoServerError, Server

RESULT = "x" * 500
CONCURRENCY = 256


async def pool(items: int, concurrency: int, step: Callable[[int], Awaitable[None]]) -> int:
    """`concurrency` workers over one source, as bare as can be."""
    source, done = iter(range(items)), 0

    async def worker() -> None:
        nonlocal done
        for index in source:
            await step(index)
            done += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())
    return done


async def without(items: int) -> int:
    """The base: each item waits once for the loop, as it would for its commit."""
    loop = asyncio.get_running_loop()

    async def step(index: int) -> None:
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future

    return await pool(items, CONCURRENCY, step)


async def journaled(store: Any, items: int, concurrency: int = CONCURRENCY, *, run_id: str = "bench") -> int:
    """Key, mark, result, commit, as the engine does."""
    loop, host = asyncio.get_running_loop(), running_host()
    async with open_journal(store, run_id) as journal:
        place = journal.place(("node",), 0, host, key=None, result_type=str)

        async def step(index: int) -> None:
            key = place.key_of({"id": index, "text": "a row of the input"})
            if place.has_records and await place.recall(key) is not None:
                return
            place.begin(key)
            future = loop.create_future()
            place.commit(key, Ok(RESULT, index=index), future.set_result)
            await future

        return await pool(items, concurrency, step)


def cases(directory: Path, items: int, server: str | None) -> list[Case]:
    """The cases; a finished run of `items` lies ready to be read back. `server`: a PostgreSQL URL."""
    finished = directory / "finished.db"
    asyncio.run(journaled(SQLStore(finished), items))
    fresh = iter(range(10**6))

    def new() -> SQLStore:
        for old in directory.glob("fresh*"):
            old.unlink()
        return SQLStore(directory / f"fresh{next(fresh)}.db")

    async def in_memory() -> int:
        return await journaled(MemoryStore(), items)

    async def grouped() -> int:
        return await journaled(new(), items)

    async def single() -> int:
        return await journaled(new(), few, 1)

    few = max(1, items // 20)
    found = [
        Case("no journal", items, partial(without, items)),
        Case("memory store", items, in_memory),
        Case("group commit", items, grouped),
        Case("one commit per item", few, single),
        Case("read back", items, partial(journaled, SQLStore(finished), items)),
    ]
    if server is not None:
        store = as_store(server)
        asyncio.run(journaled(store, items, run_id="finished"))

        async def on_server() -> int:
            return await journaled(store, items, run_id=f"fresh{next(fresh)}")

        found.append(Case("PostgreSQL, group commit", items, on_server))
        found.append(
            Case("PostgreSQL, read back", items, partial(journaled, store, items, run_id="finished"))
        )
    return found


def rows(samples: dict[str, list[float]]) -> list[Row]:
    """The cost on top of the base, and the gain of grouping."""
    base = samples["no journal"]
    found = [Row("no journal", median(base), "µs/item")]
    for name, bar in (
        ("memory store", None),
        ("group commit", 60.0),
        ("read back", 40.0),
        ("PostgreSQL, group commit", None),
        ("PostgreSQL, read back", None),
    ):
        if name not in samples:
            continue
        extra = [mine - theirs for mine, theirs in zip(samples[name], base, strict=True)]
        found.append(Row(f"{name}, on top", median(extra), "µs/item", bar=bar))
    ratios = sorted(
        mine / theirs
        for mine, theirs in zip(samples["group commit"], samples["one commit per item"], strict=True)
    )
    single = median(samples["one commit per item"])
    found.append(Row("one commit per item", single, "µs/item"))
    found.append(
        Row(
            "group commit",
            median(samples["group commit"]),
            "µs/item",
            "one commit per item",
            median(ratios),
            ratios[len(ratios) // 4],
            ratios[-1 - len(ratios) // 4],
            0.25,
        )
    )
    return found


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    directory = Path(tempfile.mkdtemp(prefix="asyncflow-bench-"))
    server: Server | None = None
    try:
        with suppress(NoServerError):
            server = Server()
        found = cases(directory, options.items, None if server is None else server.url())
        result = rows(interleave(found, options.rounds))
    finally:
        shutil.rmtree(directory)
        if server is not None:
            server.remove()
    if options.json:
        print(
            json.dumps(
                {"environment": environment(), "rows": [{**_fields(row), "met": row.met} for row in result]}
            )
        )
    else:
        print(environment())
        print(table(result))


def _fields(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Row.__slots__}


if __name__ == "__main__":
    main(sys.argv[1:])
