"""What a server brings with it: who holds a run, connections that are lost, passwords, and databases that do
not suit. What PostgreSQL has in common with the other stores is in contracts/test_store.py."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from asyncflow import AsyncFlow, AsyncNode, amap, run_sync, stream
from asyncflow.durability import as_store, open_run, status, tables
from asyncflow.durability.postgres import locks, schema
from asyncflow.durability.postgres import marks as table_marks
from asyncflow.durability.postgres.address import Address
from asyncflow.durability.postgres.connecting import passes
from asyncflow.durability.postgres.store import PostgresStore
from asyncflow.durability.sqlwriter import SQLWriter
from asyncflow.durability.store import OK, PlaceRow, Record
from asyncflow.durability.writer import Writer, share, unshare
from asyncflow.errors import NotSupportedError, StoreError, StoreFormatError, StoreLockedError
from tests.postgres_server import PASSWORD, USER, Server

ROOT = Path(__file__).resolve().parents[2]
PLACE = PlaceRow(5, 1, ("n",), 0)


def record(n: int, session: int = 1, run: int = 1) -> Record:
    return Record(run, 5, n.to_bytes(16, "big"), session, OK, 1, n, None, 1.0, 2.0, b"1", None)


def positions(store: PostgresStore, run: int = 1) -> list[int]:
    reader = store.open_reader()
    try:
        return [found.position for _, found in reader.following(run, 0, 10_000)]
    finally:
        reader.close()


def end_connections(postgres: Server) -> None:
    """As an administrator, or a failing network, would."""
    postgres.ask(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'asyncflow'"
    )


class Told(list[BaseException | None]):
    """What `committed` was called with."""

    def __init__(self) -> None:
        self.arrived = threading.Event()

    def __call__(self, error: BaseException | None) -> None:
        self.append(error)
        self.arrived.set()


class Home:
    """Stands for an event loop whose callbacks run at once."""

    key = object()

    def from_thread(self, callback: Callable[[], None]) -> None:
        callback()


# Doors -----------------------------------------------------------------------------------------------------


def test_every_door_takes_the_url(postgres_url: str) -> None:
    """`amap`, `stream`, `run_sync`: the second time nothing is called."""
    calls: list[int] = []

    async def double(number: int) -> int:
        calls.append(number)
        return 2 * number

    class One(AsyncNode):
        async def exec_async(self, prep_res: Any) -> int:
            calls.append(-1)
            return 1

    async def streamed() -> list[int]:
        async with stream(double, range(4), store=postgres_url, run_id="s", ordered=True) as outcomes:
            return [outcome.value async for outcome in outcomes]

    for _ in range(2):
        assert asyncio.run(amap(double, range(3), store=postgres_url, run_id="a")) == [0, 2, 4]
        assert asyncio.run(streamed()) == [0, 2, 4, 6]
        run_sync(AsyncFlow(start=One()), {}, store=postgres_url, run_id="r")
    assert sorted(calls) == [-1, 0, 0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("//u@/work?host=/tmp&port=5432", "//u@/work?host=/tmp&port=5433", False),
        ("///?service=prod", "///?service=test", False),
        ("//u@h/work?hostaddr=10.0.0.1", "//u@h/work?hostaddr=10.0.0.2", False),
        ("//u@h/work", "//v@h/work", False),
        ("//u@h/work", "//u@h/play", False),
        ("//u@/work", "//u@there/work", False),
        ("//u@h/work", "//u:hush@h:5432/work?sslmode=prefer", True),
        ("//u@h", "//u@h/u", True),
        ("//u@/work", "//u@here/work", True),  # as PGHOST says
    ],
)
def test_two_stores_share_a_writer_only_where_they_are_one_place(
    one: str, other: str, same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever part chooses it, in the URL or in libpq's environment; the password is no such part."""
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PGHOST", "here")
    keys = [PostgresStore(f"postgresql:{url}").key for url in (one, other)]
    assert (keys[0] == keys[1]) is same and "hush" not in keys[1]
    monkeypatch.setenv("PGHOST", "there")
    assert PostgresStore("postgresql://u@/work").key not in keys[:1]


def test_without_psycopg_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is called, or even looked for."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(NotSupportedError, match=r"pip install 'asyncflow-engine\[postgres\]'"):
        asyncio.run(amap(str, [1], store="postgresql://localhost/x"))


def test_nothing_of_it_is_loaded_before_it_is_used() -> None:
    """`import asyncflow`, and a run on SQLite, know nothing of psycopg."""
    program = (
        "import asyncio, sys, tempfile, asyncflow\n"
        "asyncio.run(asyncflow.amap(str, [1], store=tempfile.mkdtemp() + '/r.db'))\n"
        "assert not {'psycopg', 'asyncflow.durability.postgres.store'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=50)


# Passwords -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3cr@et@localhost/x",
        "postgresql://u:s3cr/et@localhost/x",
        "postgresql://u:s3cr?et@localhost/x",
        "postgresql://u:s3cr#et@localhost/x",
        "postgresql://u:s3cr%zzet@localhost/x",
        "postgresql://u:s3cret",
        "postgresql://localhost/x?pasword=s3cret",
        "postgresql://u:s3cret@127.0.0.1:1/x",
        "postgresql://127.0.0.1:1/x?user=u&password=s3cret",
        "postgresql+psycopg://u:s3cret@no-such-host.invalid/x",
        "postgres://u:s3cret@/x?host=/nowhere",
    ],
)
def test_a_password_is_in_no_error(url: str) -> None:
    """Whether the URL cannot be read or the server not reached: not in the text, nor in what caused it."""
    with pytest.raises(StoreError) as caught:
        as_store(url).open_writer()
    said = "".join(traceback.format_exception(caught.value)).replace(url, "")
    said = "\n".join(line for line in said.splitlines() if "s3cr" not in line or "test_postgres" not in line)
    assert "s3cr" not in said and "et@" not in said, said


def test_a_refused_password_is_not_shown(postgres: Server) -> None:
    """The server's word is, and where it was."""
    store = PostgresStore(postgres.url(password="wr0ng-pass"))
    with pytest.raises(StoreError, match="password authentication failed") as caught:
        store.open_writer()
    assert f"{USER}@127.0.0.1:{postgres.port}/postgres" in str(caught.value)
    assert "wr0ng" not in "".join(traceback.format_exception(caught.value)) + repr(store) + store.key


def test_a_store_s_text_has_no_password(postgres_url: str) -> None:
    """Neither the store's, nor the writer's, nor the journal's."""
    with open_run(postgres_url, "a") as journal:
        shown = f"{as_store(postgres_url)!r} {journal!r} {journal._writer!r} {as_store(postgres_url).key}"
    assert PASSWORD not in shown and "tester@127.0.0.1" in shown


# Who holds a run -------------------------------------------------------------------------------------------

HOLDING = """
import sys, time
from asyncflow.durability import as_store
writer = as_store(sys.argv[1]).open_writer()
writer.start("a", "n", "{}", time.time())
print("open", flush=True)
time.sleep(60)
"""


def test_a_killed_process_s_run_is_interrupted_at_once(postgres_url: str) -> None:
    """While it lives others are refused with its pid, host and start; its lock goes with its connection."""
    store = PostgresStore(postgres_url)
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDING, postgres_url],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert child.stdout is not None and child.stdout.readline() == "open\n"
    with pytest.raises(StoreLockedError, match=f"run a in .*process {child.pid} on ") as caught:
        with open_run(postgres_url, "a"):
            pass
    assert (caught.value.pid, caught.value.host) == (child.pid, socket.gethostname())
    assert caught.value.started and len(caught.value.started) == len("2026-11-21T13:24:24+00:00")
    assert f"process {child.pid}" in (store.holder("a") or "")
    child.kill()
    child.wait()
    child.stdout.close()
    while store.holder("a") is not None:  # until the server has seen the end of the connection
        pass
    reader = store.open_reader()
    row = reader.run("a")
    reader.close()
    assert row is not None and status(row, held=store.holder("a") is not None) == "interrupted"
    with open_run(postgres_url, "a"):
        pass


def test_two_processes_may_write_different_runs(postgres_url: str) -> None:
    """The lock is the run's, not the database's; a run that has ended is free though its process goes on."""
    store = PostgresStore(postgres_url)
    with closing(store.open_writer()) as first, closing(store.open_writer()) as second:
        a, of_a = first.start("a", "n", "{}", 1.0)
        b, of_b = second.start("b", "n", "{}", 1.0)
        first.append([PlaceRow(5, a, ("n",), 0)], [record(n, of_a, a) for n in range(3)])
        second.append([PlaceRow(6, b, ("n",), 0)], [record(9, of_b, b)._replace(place=6)])
        with pytest.raises(StoreLockedError, match="run a in"):
            second.start("a", "n", "{}", 2.0)
        with pytest.raises(StoreLockedError, match="run a in"):
            second.remove(a)
        assert second.start("c", "n", "{}", 2.0)  # what was refused left nothing open
        first.end(of_a, "finished", 3.0)
        assert store.holder("a") is None and store.holder("b") is not None
        second.start("a", "n", "{}", 4.0)
    assert positions(store, a) == [0, 1, 2] and positions(store, b) == [9]


def test_who_comes_second_by_a_moment_pays_for_nothing(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process had the whole run between our look at it and our lock: refused, then gone on from."""
    start = SQLWriter.start
    ahead = PostgresStore(postgres_url)

    def overtaken(self: SQLWriter, *arguments: Any) -> tuple[int, int]:
        monkeypatch.setattr(SQLWriter, "start", start)
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 999_999)
            with closing(ahead.open_writer()) as other:
                run, session = other.start("a", "n", "{}", 1.0)
                other.end(session, "finished", 2.0)
        return start(self, *arguments)

    monkeypatch.setattr(SQLWriter, "start", overtaken)
    with pytest.raises(StoreLockedError, match="opened by process 999999 .* at the same moment"):
        with open_run(postgres_url, "a"):
            pass
    with open_run(postgres_url, "a") as journal:
        assert journal.resumed
    with closing(ahead.open_reader()) as reader:
        row = reader.run("a")
    assert row is not None and [each.how for each in row.sessions] == ["finished", "cancelled", "finished"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        *[(code, True) for code in ("53100", "53200", "53300", "57P01", "57P03", "08006", "58030", "40001")],
        *[(code, False) for code in ("23505", "22P05", "42501", "42P01", "XX001", "0A000")],
    ],
)
def test_what_may_pass_is_told_by_the_server_s_code(code: str, expected: bool) -> None:
    """A full disk, too many connections, a shutdown, an I/O error: again. Damage, a wrong statement: not."""
    import psycopg
    from sqlalchemy.exc import DBAPIError

    original = psycopg.errors.lookup(code)("injected")
    assert passes(DBAPIError("INSERT", None, original)) is expected


def test_a_forked_child_keeps_no_lock_alive(postgres_url: str) -> None:
    """Nor can it write; when the parent closes, the run is free, though the child lives."""
    import warnings

    store = PostgresStore(postgres_url)
    writer = share(store)
    writer.call(lambda backend: backend.start("a", "n", "{}", 1.0))
    writer.marks.set(bytes(16), 5, 1)
    writer.marks.flush()
    read, write = os.pipe()
    hold_read, hold_write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            writer.submit(record(1), PLACE, None, Home())
        except StoreError as exc:
            os.write(write, str(exc).encode()[:200])
        os.read(hold_read, 1)
        os._exit(0)
    try:
        assert b"before the process forked" in os.read(read, 300)
        told = Told()
        writer.submit(record(3), PLACE, told, Home())
        assert told.arrived.wait(20) and told == [None]
        unshare(store, writer)
        while store.holder("a") is not None:
            pass
    finally:
        os.write(hold_write, b"x")
        os.waitpid(child, 0)
        for end in (read, write, hold_read, hold_write):
            os.close(end)
    assert positions(store) == [3]


def test_a_server_that_hangs_holds_up_one_item_and_not_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items are marked before they begin only while the server keeps up: it is waited for on the loop."""
    go, waits = threading.Event(), []

    class Hangs(Address):
        def connect(self, **_: Any) -> Any:
            assert go.wait(20)
            raise OSError("away")

    monkeypatch.setattr(table_marks, "_PATIENCE", 0.01)
    marks = table_marks.TableMarks(Hangs("postgresql://localhost/work"))
    flush = marks.flush
    monkeypatch.setattr(marks, "flush", lambda: (waits.append(1), flush()))
    marks.careful()
    for _ in range(5):
        marks.set(bytes(16), 5, 1)
    assert waits == [1]
    go.set()
    marks.close()


# Lost connections ------------------------------------------------------------------------------------------


def test_a_lost_connection_is_found_again(postgres: Server) -> None:
    """Results in hand are kept and tried again; the run has its lock again; and it ends as it should."""
    store = PostgresStore(postgres.url())
    with open_run(store, "a") as journal:
        for n in range(3):
            end_connections(postgres)
            told = Told()
            journal._writer.submit(record(n, journal.session), PLACE, told, Home())
            assert told.arrived.wait(20) and told == [None]
        with pytest.raises(StoreLockedError):
            with closing(PostgresStore(postgres.url(password=PASSWORD)).open_writer()) as other:
                other.start("a", "n", "{}", 1.0)
        end_connections(postgres)
    assert positions(store) == [0, 1, 2] and store.holder("a") is None


def test_a_lock_that_is_given_up_while_it_is_asked_for_is_taken(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lost connection had it a moment ago: no other process has opened the run."""
    take, asked = locks.take, []

    def late(connection: Any, run: int) -> bool:
        asked.append(run)
        return len(asked) > 1 and take(connection, run)

    with open_run(PostgresStore(postgres.url()), "a") as journal:
        monkeypatch.setattr(locks, "take", late)
        end_connections(postgres)
        told = Told()
        journal._writer.submit(record(1, journal.session), PLACE, told, Home())
        assert told.arrived.wait(20) and told == [None] and len(asked) > 1


@pytest.mark.parametrize("how", ["SIGINT", "SIGQUIT"])
def test_a_restarted_server_costs_nothing_that_was_recorded(postgres: Server, how: str) -> None:
    """Shut down, or crashed: the run waits, goes on, and has each result once."""
    import signal

    calls: list[int] = []
    restarted = threading.Event()

    def restart() -> None:
        postgres.stop(getattr(signal, how))
        postgres.start()
        restarted.set()

    async def double(number: int) -> int:
        calls.append(number)
        if number == 40:
            threading.Thread(target=restart).start()
        await asyncio.sleep(0)
        return 2 * number

    found = asyncio.run(amap(double, range(400), store=postgres.url(), run_id="a", concurrency=4))
    assert restarted.wait(20)
    assert found == [2 * n for n in range(400)] and sorted(calls) == list(range(400))
    assert sorted(positions(PostgresStore(postgres.url()))) == list(range(400))


def test_a_server_that_stays_away_ends_the_run_loudly(postgres: Server) -> None:
    """Nothing begins meanwhile but what fits into the window; the error says what, and that it resumes."""
    calls: list[int] = []

    async def double(number: int) -> int:
        calls.append(number)
        if number == 40:
            postgres.stop()
        await asyncio.sleep(0)
        return number

    store = PostgresStore(postgres.url())
    held = share(store, grace=0.5)  # the run shares it
    try:
        with pytest.raises(StoreError, match="cannot be written to: .* the same command resumes"):
            asyncio.run(amap(double, range(10_000), store=store, run_id="a", concurrency=4))
    finally:
        unshare(store, held)
        postgres.start()
    assert len(calls) < 41 + 64 + 8
    before = set(positions(store))
    calls.clear()
    asyncio.run(amap(double_again(calls), range(100), store=store, run_id="a", changed="keep"))
    assert before.isdisjoint(calls) and sorted(before | set(calls)) == list(range(100))


def double_again(calls: list[int]) -> Any:
    async def double(number: int) -> int:
        calls.append(number)
        return number

    return double


def test_a_run_that_was_taken_over_is_not_written_to(postgres: Server) -> None:
    """Another process opened it while the connection was lost: the error says so, at once and for good."""
    store = PostgresStore(postgres.url())
    writer = Writer(store, grace=30)
    writer.call(lambda backend: backend.start("a", "n", "{}", 1.0))
    end_connections(postgres)
    with closing(store.open_writer()) as other:
        other.start("a", "n", "{}", 2.0)
        told = Told()
        writer.submit(record(1), PLACE, told, Home())
        assert told.arrived.wait(20) and "another process has opened" in str(told[0])
    writer.close()
    assert positions(store) == []


def test_a_connection_that_only_we_have_lost_does_not_lock_us_out(postgres: Server) -> None:
    """A cut network: the server still has the old connection and its lock. It is ended, the lock taken."""
    store = PostgresStore(postgres.url())
    writer = Writer(store, grace=20)
    _, session = writer.call(lambda backend: backend.start("a", "n", "{}", 1.0))
    file = writer._backend._site._driver.fileno()  # type: ignore[attr-defined]
    kept = os.dup(file)  # so that the server does not see an end
    dead, end = socket.socketpair()
    os.dup2(dead.fileno(), file)
    dead.close()
    end.close()
    told = Told()
    writer.submit(record(1, session), PLACE, told, Home())
    assert told.arrived.wait(20) and told == [None]
    os.close(kept)
    writer.close()
    assert positions(store) == [1]


def test_a_reader_asks_again(postgres: Server) -> None:
    """A question changes nothing, so one whose connection was lost is put once more; and it only reads."""
    store = PostgresStore(postgres.url())
    with open_run(store, "a"):
        pass
    reader = store.open_reader()
    end_connections(postgres)
    assert [run.id for run in reader.runs()] == ["a"]
    link: Any = reader._link
    with pytest.raises(Exception, match="read-only transaction"):
        link.connection.exec_driver_sql("DELETE FROM runs")
    reader.close()


# What was in flight ----------------------------------------------------------------------------------------

IN_FLIGHT = """
import asyncio, os, signal, sys
from asyncflow.durability import open_journal
from asyncflow.engine.hosts import running_host
from asyncflow.outcome import Ok

async def main():
    async with open_journal(sys.argv[1], "a") as journal:
        place = journal.place(("n",), 0, running_host(), key=None, result_type=None)
        keys = [place.key_of(item) for item in range(4)]
        for key in keys[:3]:
            place.begin(key)
        told = asyncio.get_running_loop().create_future()
        place.commit(keys[0], Ok(0), told.set_result)
        await told
        journal._writer.marks.flush()
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_a_killed_process_leaves_the_names_of_what_was_in_flight(postgres_url: str) -> None:
    """Begun and not recorded: counted at the next opening, once, and not after a clean end."""
    for deaths in (1, 2):
        subprocess.run([sys.executable, "-c", IN_FLIGHT, postgres_url], cwd=ROOT, check=False, timeout=60)
        with open_run(postgres_url, "a") as journal:
            assert (journal.counts.done, journal.counts.in_flight) == (1, 2)
        with closing(PostgresStore(postgres_url).open_reader()) as reader:
            assert len(reader.deaths(1)) == 2 * deaths
            assert not any(death.alone for death in reader.deaths(1))
    with open_run(postgres_url, "a") as journal:
        assert journal.counts.in_flight == 0


def test_marks_go_with_their_items(postgres: Server) -> None:
    """What has ended is not marked, and after a clean end nothing is; short-lived ones are never written."""
    store = PostgresStore(postgres.url())
    writer = store.open_writer()
    _, session = writer.start("a", "n", "{}", 1.0)
    slots = [writer.marks.set(n.to_bytes(16, "big"), 5, session) for n in range(100)]
    for slot in slots[1:]:
        writer.marks.clear(slot)
    writer.marks.set(b"x" * 16, 5, session)
    writer.marks.flush()
    found = postgres.ask("SELECT key FROM asyncflow.marks ORDER BY key")
    assert found == [(bytes(16),), (b"x" * 16,)]
    writer.close()
    assert postgres.ask("SELECT key FROM asyncflow.marks") == []


# Databases that do not suit ---------------------------------------------------------------------------------


def test_what_is_not_a_store_is_refused_and_left_alone(postgres: Server) -> None:
    """A schema of the same name that is somebody else's, a newer version, and none at all."""
    store = PostgresStore(postgres.url())
    with pytest.raises(StoreError, match="there is no store in"):
        store.open_reader()
    assert store.holder() is None
    postgres.ask("CREATE SCHEMA asyncflow CREATE TABLE orders (id int)")
    for opening in (store.open_writer, store.open_reader):
        with pytest.raises(StoreFormatError, match="not a store's"):
            opening()
    assert postgres.ask("SELECT count(*) FROM pg_tables WHERE schemaname = 'asyncflow'") == [(1,)]
    postgres.ask("DROP SCHEMA asyncflow CASCADE")
    store.open_writer().close()
    postgres.ask(f"UPDATE asyncflow.version SET number = {tables.VERSION + 1}")
    for opening in (store.open_writer, store.open_reader):
        with pytest.raises(StoreFormatError, match="update asyncflow"):
            opening()


def test_an_older_store_is_migrated_unless_somebody_is_at_work(postgres: Server) -> None:
    """In one transaction; a reader says what migrates."""
    store = PostgresStore(postgres.url())
    with open_run(store, "a"):
        pass
    at_work = store.open_writer()
    postgres.ask("ALTER TABLE asyncflow.sessions DROP COLUMN pid, DROP COLUMN host")
    postgres.ask("UPDATE asyncflow.version SET number = 1")
    with pytest.raises(StoreFormatError, match="migrated when it is next opened for writing"):
        store.open_reader()
    with pytest.raises(StoreLockedError, match="are at work on it"):
        store.open_writer()
    at_work.close()
    with open_run(store, "b"):
        pass
    with closing(store.open_reader()) as reader:
        assert [run.id for run in reader.runs()] == ["a", "b"]
    assert postgres.ask("SELECT number FROM asyncflow.version") == [(tables.VERSION,)]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("ALTER DATABASE odd SET default_transaction_read_only = on", "read-only transaction"),
        ("REVOKE CREATE ON DATABASE odd FROM PUBLIC", "CREATE SCHEMA asyncflow AUTHORIZATION"),
        ("UPDATE pg_database SET encoding = 0 WHERE datname = 'odd'", "needs a database in UTF8"),
    ],
)
def test_a_database_that_cannot_be_written_to_is_told_at_the_opening(
    postgres: Server, setting: str, says: str
) -> None:
    """Before the first call is paid for, with what to do."""
    postgres.ask("CREATE DATABASE odd")
    postgres.ask("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    calls: list[int] = []
    try:
        postgres.ask(setting)
        url = postgres.url("odd", user="guest", password="guest")
        with pytest.raises(StoreError, match=says):
            asyncio.run(amap(calls.append, [1], store=url))
        assert calls == []
    finally:
        postgres.ask("DROP DATABASE odd WITH (FORCE)")
        postgres.ask("DROP ROLE guest")


def test_a_server_that_may_forget_is_warned_of(postgres: Server) -> None:
    """`fsync=off`; and what would forget or cut off a commit is put right for the store's own connection."""
    postgres.stop()
    postgres.start("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "statement_timeout=5s")
    try:
        with pytest.warns(RuntimeWarning, match="fsync=off"):
            writer = PostgresStore(postgres.url()).open_writer()
        site: Any = writer._site
        assert site.connection().exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
        assert site.connection().exec_driver_sql("SHOW statement_timeout").scalar() == "0"
        writer.close()
    finally:
        postgres.stop()
        postgres.start()


def test_two_first_runs_at_once_make_one_store(postgres_url: str) -> None:
    """However they meet, the tables are made once, and each has its run."""
    stores = [PostgresStore(postgres_url) for _ in range(6)]
    together = threading.Barrier(len(stores))
    errors: list[BaseException] = []

    def first(store: PostgresStore, name: str) -> None:
        together.wait()
        try:
            with closing(store.open_writer()) as writer:
                writer.start(name, "n", "{}", 1.0)
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=first, args=(each, str(n % 3))) for n, each in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(error, StoreLockedError) for error in errors), errors
    with closing(stores[0].open_reader()) as reader:
        assert {run.id for run in reader.runs()} == {"0", "1", "2"}


def test_the_address_takes_what_libpq_takes() -> None:
    """Hosts, sockets, parameters; the text names the place."""
    for url, text in (
        ("postgresql://u@h/d?sslmode=require", "postgresql://u@h:5432/d"),
        ("postgres://h1:1,h2:2/d?target_session_attrs=read-write", "postgresql://h1,h2:1,2/d"),
        ("postgresql://%2Frun%2Fpg/d", "postgresql:///run/pg/d"),
        ("postgresql:///d", "postgresql:///d"),
    ):
        assert str(Address(url)) == text
    assert schema.NAME == "asyncflow"
