"""A server in trouble: what of it ends a run, and whose."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from asyncflow.durability import open_run
from asyncflow.durability.postgres.store import PostgresStore
from asyncflow.durability.store import OK, PlaceRow, Record
from asyncflow.errors import StoreError
from tests.postgres_server import Server


class Told(list[BaseException | None]):
    """What `committed` was called with."""

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)

    def __call__(self, error: BaseException | None) -> None:
        self.append(error)
        self.arrived.release()


class Home:
    """Stands for an event loop whose callbacks run at once."""

    key = object()

    def from_thread(self, callback: Callable[[], None]) -> None:
        callback()


def record(journal: Any, n: int) -> tuple[Record, PlaceRow]:
    run = journal._run
    return (
        Record(run, run, n.to_bytes(16, "big"), journal.session, OK, 1, n, None, 1.0, 2.0, b"1", None),
        PlaceRow(run, run, ("n",), 0),
    )


def positions(store: PostgresStore, run: int) -> list[int]:
    with closing(store.open_reader()) as reader:
        return [found.position for _, found in reader.following(run, 0, 10_000)]


def end_connections(postgres: Server) -> None:
    """As an administrator, or a failing network, would."""
    postgres.ask(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'asyncflow'"
    )


# A run that is another's by now ----------------------------------------------------------------------------


@pytest.mark.parametrize("still", [True, False])
def test_a_run_that_was_taken_over_ends_alone(postgres: Server, still: bool) -> None:
    """Of three runs with one connection, one is opened elsewhere while that is lost: its records are refused
    for good, those of the others in the same group are kept, and the others go on to their end."""
    store = PostgresStore(postgres.url())
    lost, kept, told = Told(), Told(), Told()
    with open_run(store, "b") as b, open_run(store, "c") as c:
        with pytest.raises(StoreError, match="another process has opened or removed the run"):
            with open_run(store, "a") as a:
                writer = a._writer
                end_connections(postgres)
                other = store.open_writer()
                _, session = other.start("a", "n", "{}", 2.0)
                if not still:
                    other.end(session, "finished", 3.0)
                    other.close()
                busy, go = threading.Event(), threading.Event()
                writer.post(lambda _: (busy.set(), go.wait(20), None)[-1], lambda _: None)
                assert busy.wait(20)
                for n in range(3):
                    writer.submit(*record(b, n), kept, Home())
                    writer.submit(*record(a, n), lost, Home())
                    writer.submit(*record(c, n), kept, Home())
                go.set()
                for _ in range(6):
                    assert kept.arrived.acquire(timeout=20)
                for _ in range(3):
                    assert lost.arrived.acquire(timeout=20)
                writer.submit(*record(a, 9), lost, Home())
                assert lost.arrived.acquire(timeout=20)
        assert kept == [None] * 6 and all(isinstance(error, StoreError) for error in lost)
        if still:
            other.close()
        with open_run(store, "a") as again:  # in this process too, now that the other has let go
            writer.submit(*record(again, 5), told, Home())
            assert told.arrived.acquire(timeout=20) and told == [None]
    assert positions(store, a._run) == [5]
    assert positions(store, b._run) == positions(store, c._run) == [0, 1, 2]
    with closing(store.open_reader()) as reader:
        hows = {row.id: [each.how for each in row.sessions] for row in reader.runs()}
    assert hows["b"] == hows["c"] == ["finished"] and hows["a"][-1] == "finished"
