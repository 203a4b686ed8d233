"""Files that are not ours, damaged, newer, in use, or in a place where nothing can be written."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from asyncflow.durability import marks, sqlite, tables
from asyncflow.durability.marks import FileMarks
from asyncflow.durability.sqlstore import SQLStore
from asyncflow.durability.store import OK, PlaceRow, Record
from asyncflow.errors import NotSupportedError, StoreError, StoreFormatError, StoreLockedError


def record(n: int) -> Record:
    return Record(1, 5, n.to_bytes(16, "big"), 1, OK, 1, n, None, 1.0, 2.0, b"1" * 100, None)


def filled(path: Path, count: int = 200) -> SQLStore:
    store = SQLStore(path)
    writer = store.open_writer()
    run, _ = writer.start("a", "n", "{}", 1.0)
    writer.append([PlaceRow(5, run, ("n",), 0)], [record(n) for n in range(count)])
    writer.close()
    return store


def refused(path: Path, says: str) -> None:
    """Refused for writing and for reading, and not one byte changed."""
    before = path.read_bytes()
    with pytest.raises(StoreFormatError, match=says):
        SQLStore(path).open_writer()
    assert path.read_bytes() == before
    assert SQLStore(path).holder() is None  # and the lock is free again


def test_the_connection_keeps_the_promise(tmp_path: Path) -> None:
    """WAL, synchronous=FULL, no memory map; a clean end leaves the database and an empty lock file."""
    store = SQLStore(tmp_path / "runs.db")
    writer = store.open_writer()
    found = {
        name: writer._site.connection().exec_driver_sql(f"PRAGMA {name}").scalar()
        for name in ("journal_mode", "synchronous", "mmap_size", "application_id", "user_version")
    }
    assert found == {
        "journal_mode": "wal",
        "synchronous": 2,
        "mmap_size": 0,
        "application_id": sqlite.APPLICATION_ID,
        "user_version": tables.VERSION,
    }
    writer.close()
    assert {each.name: each.stat().st_size > 0 for each in tmp_path.iterdir()} == {
        "runs.db": True,
        "runs.db.lock": False,
    }


def test_what_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Garbage, another program's database, a cut-off file, an older or a newer schema."""
    path = tmp_path / "x"
    path.write_bytes(b"id,text\n" * 100)
    refused(path, "not a SQLite file")
    path.write_bytes(b"SQLite format 3\0")
    refused(path, "not a SQLite file")
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE t (x)")
    other.close()
    refused(path, "some other program")
    path.unlink()
    filled(path)
    for version, says in ((tables.VERSION + 1, "update asyncflow"), (0, "cannot be migrated")):
        direct = sqlite3.connect(path)
        direct.execute(f"PRAGMA user_version = {version}")
        direct.close()
        refused(path, says)


def test_a_file_overwritten_in_parts_is_refused(tmp_path: Path) -> None:
    """Damage is told at the opening after a crash, or when the damaged record is read."""
    path = tmp_path / "runs.db"
    filled(path, 2000)
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes(4096 * 4) + data[middle + 4096 * 4 :])
    (tmp_path / "runs.db.lock").write_text('{"pid": 1, "host": "h", "started": "s", "dirty": true}')
    with pytest.raises(StoreFormatError, match="damaged"):
        SQLStore(path).open_writer()
    at = data.index(b"1" * 100)
    path.write_bytes(data[:at] + b"2" + data[at + 1 :])
    reader = SQLStore(path).open_reader()
    with pytest.raises(StoreFormatError, match=r"record \d+ is damaged \(item \d+"):
        reader.following(1, 0, 5000)
    reader.close()


def test_records_that_have_gone_with_their_log_are_missed(tmp_path: Path) -> None:
    """The file copied without its -wal, or the -wal deleted: the count in the marks says so."""
    path = tmp_path / "runs.db"
    filled(path, 10)
    left = FileMarks(tmp_path / "runs.db.marks")
    left.committed(12)
    left.close()
    refused(path, "ends at record 10, but 12 were committed")


def test_where_nothing_can_be_written_the_opening_says_so(tmp_path: Path) -> None:
    """No directory, a file in its place, a read-only one: a StoreError before anything was paid for."""
    with pytest.raises(StoreError, match="no directory"):
        SQLStore(tmp_path / "a" / "b.db").open_writer()
    with pytest.raises(StoreError, match="cannot be opened for writing"):
        SQLStore("/proc/runs.db").open_writer()
    with pytest.raises(StoreError, match="no store"):
        SQLStore(tmp_path / "none.db").open_reader()
    with pytest.raises(NotSupportedError, match="postgresql"):
        SQLStore("postgresql://x/y")
    assert list(tmp_path.iterdir()) == []


def test_another_process_is_named(tmp_path: Path) -> None:
    """A second process is refused with pid, host and start; killed, it has left the lock at once."""
    path = tmp_path / "runs.db"
    program = (
        "import sys, time\nfrom asyncflow.durability.sqlstore import SQLStore\n"
        "w = SQLStore(sys.argv[1]).open_writer()\nw.start('a', 'n', '{}', 1.0)\n"
        "print('open', flush=True)\ntime.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "open\n"
    with pytest.raises(StoreLockedError, match=f"process {child.pid} on ") as caught:
        SQLStore(path).open_writer()
    assert caught.value.pid == child.pid and caught.value.host and caught.value.started
    assert f"process {child.pid}" in (SQLStore(path).holder() or "")
    child.kill()
    child.wait()
    child.stdout.close()
    assert SQLStore(path).holder() is None
    SQLStore(path).open_writer().close()


def test_marks_survive_and_tell_what_was_in_flight(tmp_path: Path) -> None:
    """What is set and not cleared is read back; slots are used again, and more are made when needed."""
    path = tmp_path / "m"
    mine = FileMarks(path)
    slots = [mine.set(n.to_bytes(16, "big"), n, 1) for n in range(5000)]
    for slot in slots[1:]:
        mine.clear(slot)
    assert mine.set(b"x" * 16, 2**62, 7) in slots
    mine.committed(42)
    last, found = marks.read(path)
    assert last == 42 and {(mark.key, mark.place, mark.session) for mark in found} == {
        (bytes(16), 0, 1),
        (b"x" * 16, 2**62, 7),
    }
    mine.remove()
    assert marks.read(path) == (0, [])
    path.write_bytes(b"something else that is longer than a header")
    assert marks.read(path) == (0, [])


def test_a_network_file_system_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks and syncs may not hold there."""
    monkeypatch.setattr(sqlite, "_file_system", lambda path: "nfs4")
    with pytest.warns(RuntimeWarning, match="network file system"):
        SQLStore(tmp_path / "runs.db").open_writer().close()


def test_a_full_disk_costs_only_the_suspicion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room for a mark, the item runs unmarked; a hole in the file is never mapped."""
    mine = FileMarks(tmp_path / "m")
    assert (tmp_path / "m").stat().st_blocks > 0

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(marks, "_allocate", full)
    slot = mine.set(b"x" * 16, 1, 1)
    assert slot == marks.NO_SLOT
    mine.clear(slot)
    mine.remove()


def test_a_store_in_a_folder_that_cannot_be_written_to_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive on a read-only disk: opened as a file that nobody writes to; nothing is put beside it."""
    filled(tmp_path / "runs.db", 2)
    (tmp_path / "runs.db.lock").unlink()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    reader = SQLStore(tmp_path / "runs.db").open_reader()
    assert [run.id for run in reader.runs()] == ["a"]
    reader.close()
    assert [path.name for path in tmp_path.iterdir()] == ["runs.db"]
