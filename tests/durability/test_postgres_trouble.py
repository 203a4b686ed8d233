"""A server in trouble: what of it ends a run, and whose."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from asyncflow import amap
from asyncflow.durability import as_store, open_run
from asyncflow.durability.postgres import connecting, site
from asyncflow.durability.postgres.store import PostgresStore
from asyncflow.durability.sqlwriter import SQLWriter
from asyncflow.durability.store import OK, PlaceRow, Record
from asyncflow.errors import StoreError, StoreLockedError
from tests.postgres_server import PASSWORD, Server


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


# A server that is not ready --------------------------------------------------------------------------------


class Gate:
    """Stands before the server: turns the next `refuse` logins away, as one does that is not ready yet."""

    def __init__(self, server: Server, says: str = "the database system is starting up") -> None:
        self.refuse, self.refused = 0, 0
        self._server, self._says = server, says.encode()
        self._ends: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = server.url().replace(f":{server.port}/", f":{self._listening.getsockname()[1]}/")
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for end in (self._listening, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # wakes whoever reads from it
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                end = self._listening.accept()[0]
                if self.refuse:
                    self._turn_away(end)
                    continue
                server = socket.create_connection(("127.0.0.1", self._server.port))
                self._ends += [end, server]
                for one, other in ((end, server), (server, end)):
                    threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()

    def _turn_away(self, end: socket.socket) -> None:
        with end, end.makefile("rwb") as file:
            while True:
                size = int.from_bytes(file.read(4), "big")
                if int.from_bytes(file.read(size - 4)[:4], "big") == 3 << 16:
                    break
                file.write(b"N")  # neither TLS nor GSSAPI
                file.flush()
            self.refuse, self.refused = self.refuse - 1, self.refused + 1
            fields = b"SFATAL\0VFATAL\0C57P03\0M" + self._says + b"\0\0"
            file.write(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
    for end in (one, other):  # an end that was reset is told to the other side too
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def gate(postgres: Server) -> Iterator[Gate]:
    found = Gate(postgres)
    yield found
    found.close()


@pytest.mark.parametrize("says", ["starting up", "shutting down", "in recovery mode"])
def test_a_server_that_is_not_ready_is_waited_for(
    gate: Gate, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At every opening, for writing and for reading, and it is said once for each."""
    gate._says = f"the database system is {says}".encode()
    calls: list[int] = []

    async def double(number: int) -> int:
        calls.append(number)
        return 2 * number

    for _ in range(2):
        gate.refuse = 3
        assert asyncio.run(amap(double, [1, 2], store=gate.url, run_id="a")) == [2, 4]
    gate.refuse = 3
    assert as_store(gate.url).holder("a") is None
    assert calls == [1, 2] and (gate.refuse, gate.refused) == (0, 9)
    said = [each.getMessage() for each in caplog.records if each.name == "asyncflow"]
    assert len(said) == 3 and all("waiting for it" in one and says in one for one in said)
    assert not any(PASSWORD in one for one in said)


def test_a_server_that_does_not_get_ready_is_given_up(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait is finite, and then the server's own word is told."""
    monkeypatch.setattr(connecting, "GRACE", 0.2)
    gate.refuse = 10**6
    with pytest.raises(StoreError, match="cannot be opened: .*is starting up"):
        asyncio.run(amap(str, [1], store=gate.url, run_id="a"))
    assert gate.refused > 1


def test_what_waiting_does_not_mend_is_told_at_once(postgres: Server) -> None:
    """A wrong password, a database or a server that is not there: no login is tried twice."""
    tried = []
    for url in (postgres.url(password="wrong"), postgres.url("nowhere"), "postgresql://u@127.0.0.1:1/x"):
        address = as_store(url)._address
        connect = address.connect
        address.connect = lambda connect=connect, **given: (tried.append(1), connect(**given))[1]
        with pytest.raises(StoreError, match="cannot be opened"):
            PostgresStore.open_writer(_store_at(address))
    assert len(tried) == 3


def _store_at(address: Any) -> Any:
    store: Any = PostgresStore.__new__(PostgresStore)
    store._address = address
    return store


def test_a_run_that_begins_while_the_server_restarts_begins_later(
    gate: Gate, postgres: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second run with the connection of a first, lost meanwhile, waits as the records of the first do."""
    told, start = Told(), SQLWriter.start

    def restarts(self: SQLWriter, *given: Any) -> tuple[int, int]:
        monkeypatch.setattr(SQLWriter, "start", start)
        end_connections(postgres)
        gate.refuse = 4
        return start(self, *given)

    with open_run(gate.url, "a") as a:
        monkeypatch.setattr(SQLWriter, "start", restarts)
        with open_run(gate.url, "b") as b:
            for journal in (a, b):
                journal._writer.submit(*record(journal, 1), told, Home())
                assert told.arrived.acquire(timeout=20)
            with pytest.raises(StoreLockedError):  # that is of this run alone
                with closing(PostgresStore(postgres.url()).open_writer()) as other:
                    other.start("c", "n", "{}", 1.0)
                    with open_run(gate.url, "c"):
                        pass
            a._writer.submit(*record(a, 2), told, Home())
            assert told.arrived.acquire(timeout=20)
    assert told == [None] * 3 and gate.refuse == 0
    assert any("cannot be written to now" in each.getMessage() for each in caplog.records)


def test_a_primary_that_is_not_yet_one_is_waited_for(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failover the new server still stands by for a moment: a run that is at work waits for it; an
    opening does not, as the address may be wrong."""
    suits, asked = connecting.suits, []

    def stands_by(connection: Any, where: str) -> None:
        asked.append(1)
        if len(asked) <= 2:
            raise connecting.StandbyError(f"{where} is a standby")
        suits(connection, where)

    told = Told()
    with open_run(postgres.url(), "a") as journal:
        monkeypatch.setattr(site, "suits", stands_by)
        end_connections(postgres)
        journal._writer.submit(*record(journal, 1), told, Home())
        assert told.arrived.acquire(timeout=20) and told == [None] and len(asked) == 3
        asked.clear()
        with pytest.raises(StoreError, match="is a standby"):
            PostgresStore(postgres.url()).open_writer()
        assert len(asked) == 1
