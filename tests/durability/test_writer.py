"""Group commit: everything that waits, once, told to whom it concerns, and never on without the store."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from asyncflow.durability.memory import MemoryStore
from asyncflow.durability.sqlstore import SQLStore
from asyncflow.durability.store import OK, PlaceRow, Record
from asyncflow.durability.writer import Writer, share, unshare
from asyncflow.errors import StoreError


def record(n: int, session: int = 1, data: bytes = b"1") -> Record:
    return Record(1, 5, n.to_bytes(16, "big"), session, OK, 1, n, None, 1.0, 2.0, data, None)


PLACE = PlaceRow(5, 1, ("n",), 0)


class Told(list[tuple[int, BaseException | None]]):
    """What `committed` was called with."""

    def about(self, n: int) -> Any:
        return lambda error: self.append((n, error))


def stopped(writer: Writer) -> tuple[threading.Event, threading.Event]:
    """Keep the writer's thread busy from `entered` until `go` is set."""
    entered, go = threading.Event(), threading.Event()

    def wait(_: Any) -> None:
        entered.set()
        assert go.wait(20)

    threading.Thread(target=lambda: writer.call(wait), daemon=True).start()
    assert entered.wait(20)
    return entered, go


def test_all_that_waits_is_one_group_and_each_home_is_told_once(home: Any, make_home: Any) -> None:
    """One commit for records of two loops, and one call on each."""
    store, other, told = MemoryStore(), make_home(), Told()
    writer = Writer(store)
    _, go = stopped(writer)
    for n in range(10):
        writer.submit(record(n), PLACE, told.about(n), home if n % 2 else other)
    go.set()
    assert (home.run(), other.run()) == (1, 1)
    assert sorted(told) == [(n, None) for n in range(10)]
    assert (writer.groups, writer.records) == (1, 10)
    writer.close()
    assert len(store.open_reader().following(1, 0, 100)) == 10


def test_a_lone_record_is_committed_without_waiting_for_company(home: Any) -> None:
    """There is no timer: one record in, one commit, one call."""
    writer, told = Writer(MemoryStore()), Told()
    writer.submit(record(1), PLACE, told.about(1), home)
    assert home.run() == 1 and told == [(1, None)] and writer.groups == 1
    writer.close()


def test_what_is_told_is_durable(home: Any, tmp_path: Path) -> None:
    """When the call comes, another connection sees the record."""
    store = SQLStore(tmp_path / "runs.db")
    writer = Writer(store)
    seen: list[int] = []
    reader = store.open_reader()
    writer.submit(record(1), PLACE, lambda error: seen.append(len(reader.find([(5, record(1).key)]))), home)
    home.run()
    assert seen == [1]
    reader.close()
    writer.close()


def test_a_call_comes_after_what_was_submitted_before(home: Any) -> None:
    """`call` runs in turn on the writer's thread, gives back its value, and raises its error."""
    store = MemoryStore()
    writer = Writer(store)
    writer.submit(record(1), PLACE, None, home)
    assert writer.call(lambda _: len(store.open_reader().following(1, 0, 9))) == 1
    with pytest.raises(ZeroDivisionError):
        writer.call(lambda _: 1 / 0)
    writer.close()


def test_closing_commits_what_waits(home: Any) -> None:
    """And nobody need be there to hear it: a loop that has ended is no error."""
    store = MemoryStore()
    writer = Writer(store)
    home.ended = True
    _, go = stopped(writer)
    writer.submit(record(1), PLACE, lambda error: None, home)
    go.set()
    writer.close()
    assert len(store.open_reader().following(1, 0, 9)) == 1


def test_trouble_that_passes_is_only_a_delay(home: Any) -> None:
    """The results in hand are kept and tried again."""
    store, told = MemoryStore(), Told()
    store.failures = [OSError("full"), OSError("full")]
    writer = Writer(store)
    writer.submit(record(1), PLACE, told.about(1), home)
    home.run()
    assert told == [(1, None)] and writer.trouble is None
    writer.close()


@pytest.mark.parametrize(("error", "grace"), [(OSError("full"), 0.0), (ValueError("damaged"), 30.0)])
def test_trouble_that_stays_is_told_to_all_and_for_good(home: Any, error: Exception, grace: float) -> None:
    """After the grace, or at once where repeating cannot help: waiting and later records get the StoreError,
    and nothing is written any more, though the store would take it again."""
    store, told = MemoryStore(), Told()
    store.failures = [error]
    writer = Writer(store, grace=grace)
    _, go = stopped(writer)
    for n in range(3):
        writer.submit(record(n), PLACE, told.about(n), home)
    go.set()
    home.run()
    writer.submit(record(9), PLACE, told.about(9), home)
    home.run()
    assert [n for n, _ in told] == [0, 1, 2, 9]
    for _, said in told:
        assert isinstance(said, StoreError) and str(error) in str(said) and said.__cause__ is error
    with pytest.raises(StoreError):
        writer.call(lambda _: None)
    writer.close()
    assert store.open_reader().following(1, 0, 9) == []


def test_a_full_disk_loses_nothing_and_goes_on_when_there_is_room(home: Any, tmp_path: Path) -> None:
    """SQLITE_FULL: what was committed stays, what is in hand waits, and is there when space has come."""
    store, told = SQLStore(tmp_path / "runs.db"), Told()
    writer = Writer(store, grace=20)
    connection = writer._backend._site.connection()  # type: ignore[attr-defined]
    pages = writer.call(lambda _: connection.exec_driver_sql("PRAGMA page_count").scalar())
    writer.call(lambda _: connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}"))
    writer.submit(record(1, data=b"x" * 50_000), PLACE, told.about(1), home)

    original, tries = writer._backend.append, []

    def append(places: Any, records: Any) -> None:
        tries.append(len(records))
        if len(tries) == 2:
            connection.exec_driver_sql("PRAGMA max_page_count = 100000")
        original(places, records)

    writer._backend.append = append  # type: ignore[method-assign]
    home.run()
    assert told == [(1, None)] and len(tries) >= 1
    writer.close()
    reader = store.open_reader()
    assert len(reader.find([(5, record(1).key)])) == 1
    reader.close()


def test_a_failed_sync_is_not_repeated() -> None:
    """After EIO on fsync the kernel has dropped the pages: a second one would lie. A full disk may pass."""
    from asyncflow.durability import sqlite

    def error(code: int) -> sqlite3.OperationalError:
        made = sqlite3.OperationalError("x")
        made.sqlite_errorcode = code
        return made

    assert not sqlite.retryable(error(sqlite3.SQLITE_IOERR_FSYNC))
    assert not sqlite.retryable(error(sqlite3.SQLITE_CORRUPT))
    assert not sqlite.retryable(ValueError())
    assert sqlite.retryable(error(sqlite3.SQLITE_FULL))
    assert sqlite.retryable(error(sqlite3.SQLITE_IOERR_WRITE))


def test_two_openings_share_the_writer(tmp_path: Path) -> None:
    """By file, not by spelling; the last one to give it back closes it."""
    store, same = SQLStore(tmp_path / "runs.db"), SQLStore(tmp_path / "." / "runs.db")
    first, second = share(store), share(same)
    assert first is second and store.holder() is not None
    unshare(store, first)
    assert store.holder() is not None
    unshare(same, second)
    assert store.holder() is None


def test_a_store_that_is_slow_to_open_holds_up_no_other() -> None:
    """Its own openings wait for one another, and share what comes of it."""
    slow, other = MemoryStore(), MemoryStore()
    opening, go, found = threading.Event(), threading.Event(), []
    open_writer = slow.open_writer

    def slowly() -> Any:
        opening.set()
        assert go.wait(20)
        return open_writer()

    slow.open_writer = slowly
    threads = [threading.Thread(target=lambda: found.append(share(slow))) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert opening.wait(20)

    def use_other() -> None:
        unshare(other, share(other))
        go.set()

    threads.append(threading.Thread(target=use_other))
    threads[-1].start()
    for thread in threads:
        thread.join(25)
    assert len(found) == 2 and found[0] is found[1]
    for writer in found:
        unshare(slow, writer)
    assert slow.holder() is None


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_writer_that_has_failed_is_handed_out_no_more(kind: str, home: Any, tmp_path: Path) -> None:
    """Its users hear why, and mark and give back in peace, and no item of theirs is under suspicion; whoever
    comes next has a new writer, which the store takes."""
    store, told = MemoryStore() if kind == "memory" else SQLStore(tmp_path / "runs.db"), Told()
    first = share(store)
    slot = first.marks.set(bytes(16), 5, 1)

    def fail(places: Any, records: Any) -> None:
        raise ValueError("once")

    first._backend.append = fail
    first.submit(record(1), PLACE, told.about(1), home)
    home.run()
    second, third = share(store), share(store)
    assert second is third and second is not first
    second.submit(record(2), PLACE, told.about(2), home)
    home.run()
    first.submit(record(3), PLACE, told.about(3), home)
    home.run()
    assert [error is None for _, error in told] == [False, True, False]
    first.marks.clear(slot)
    first.marks.clear(first.marks.set(bytes(16), 5, 1))
    unshare(store, first)
    unshare(store, second)
    assert store.holder() is not None
    unshare(store, third)
    assert store.holder() is None
    reader = store.open_reader()
    assert [found.position for _, found in reader.following(1, 0, 9)] == [2]
    reader.close()
    if isinstance(store, SQLStore):
        with sqlite3.connect(store.path) as connection:
            assert connection.execute("SELECT count(*) FROM deaths").fetchone() == (0,)
        connection.close()


def test_a_forked_child_cannot_write_and_keeps_no_lock(tmp_path: Path, home: Any) -> None:
    """In the child every use is a StoreError; the parent's file and lock are its own, and stay whole."""
    import warnings

    store = SQLStore(tmp_path / "runs.db")
    writer = share(store)
    writer.submit(record(1), PLACE, lambda error: None, home)
    home.run()
    read, write = os.pipe()
    hold_read, hold_write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads, on later Pythons
        child = os.fork()
    if child == 0:
        try:
            writer.submit(record(2), PLACE, None, home)
            os.write(write, b"written")
        except StoreError as exc:
            os.write(write, str(exc).encode()[:200])
        os.read(hold_read, 1)
        os._exit(0)
    try:
        assert b"before the process forked" in os.read(read, 300)
        writer.submit(record(3), PLACE, lambda error: None, home)
        home.run()
        unshare(store, writer)
        assert store.holder() is None  # though the child still lives
    finally:
        os.write(hold_write, b"x")
        os.waitpid(child, 0)
        for end in (read, write, hold_read, hold_write):
            os.close(end)
    reader = store.open_reader()
    assert [found.position for _, found in reader.following(1, 0, 9)] == [1, 3]
    reader.close()
