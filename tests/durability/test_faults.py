"""Disks that are full, slow to come back, read-only or broken; files that are cut, overwritten or another's.

Each case says what must come of it: the run goes on when the trouble has passed, or it ends loudly; it never
goes on without its store. A log cut at every frame is in crash/test_store_kill.py, a server's part in
test_postgres.py.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from asyncflow import amap
from asyncflow.durability import open_run, sqlite, status
from asyncflow.durability.sqlstore import SQLStore
from asyncflow.durability.sqlwriter import SQLWriter
from asyncflow.durability.writer import share, unshare
from asyncflow.errors import StoreError, StoreFormatError

ROOT = Path(__file__).resolve().parents[2]


def positions(path: Path) -> list[int]:
    reader = SQLStore(path).open_reader()
    try:
        return sorted(record.position for _, record in reader.following(1, 0, 100_000))
    finally:
        reader.close()


# Trouble while a run is at work -----------------------------------------------------------------------------


def said(code: int) -> OperationalError:
    """What SQLAlchemy raises where SQLite reports `code`."""
    original = sqlite3.OperationalError("injected")
    original.sqlite_errorcode = code
    return OperationalError("INSERT", (), original)


PASSING = {
    "disk full": sqlite3.SQLITE_FULL,
    "write error": sqlite3.SQLITE_IOERR_WRITE,
    "read error": sqlite3.SQLITE_IOERR_READ,
    "file busy": sqlite3.SQLITE_BUSY,
}
FINAL = {
    "failed sync": sqlite3.SQLITE_IOERR_FSYNC,
    "damaged file": sqlite3.SQLITE_CORRUPT,
    "read-only file": sqlite3.SQLITE_READONLY,
    "file gone": sqlite3.SQLITE_CANTOPEN,
}


@contextmanager
def trouble(monkeypatch: pytest.MonkeyPatch, code: int, *, first: int, times: float) -> Iterator[list[int]]:
    """The appends from the `first` on fail, `times` of them; yields the sizes of all groups tried."""
    groups: list[int] = []
    append = SQLWriter.append

    def failing(self: SQLWriter, places: Any, records: Any) -> None:
        groups.append(len(records))
        if first <= len(groups) < first + times:
            raise said(code)
        append(self, places, records)

    monkeypatch.setattr(SQLWriter, "append", failing)
    yield groups


def counted(calls: list[int]) -> Callable[[int], Any]:
    async def step(number: int) -> int:
        calls.append(number)
        await asyncio.sleep(0)
        return number

    return step


@pytest.mark.parametrize("case", PASSING)
def test_trouble_that_passes_delays_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """What is in hand is kept and tried again; every item is called once, and every result is there."""
    calls: list[int] = []
    path = tmp_path / "runs.db"
    with trouble(monkeypatch, PASSING[case], first=3, times=2) as groups:
        found = asyncio.run(amap(counted(calls), range(300), store=path, run_id="a", concurrency=8))
    assert found == list(range(300)) and sorted(calls) == list(range(300)) == positions(path)
    assert groups[2] == groups[3] == groups[4]  # the same group, each time


@pytest.mark.parametrize("case", [*PASSING, *FINAL])
def test_trouble_that_stays_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """Nothing more begins than fits into the window, nothing is visible that is not recorded, and the error
    says that it resumes; a resumed run calls only what is not recorded."""
    calls: list[int] = []
    seen: list[int] = []
    path = tmp_path / "runs.db"
    code = {**PASSING, **FINAL}[case]

    async def go() -> None:
        from asyncflow import stream

        async with stream(
            counted(calls), range(10_000), store=path, run_id="a", concurrency=8, changed="keep"
        ) as outcomes:
            async for outcome in outcomes:
                seen.append(outcome.index)

    held = share(SQLStore(path), grace=0.2)  # the run shares it
    try:
        with trouble(monkeypatch, code, first=4, times=float("inf")):
            with pytest.raises(StoreError, match="cannot be written to: injected.* the same command resumes"):
                asyncio.run(go())
    finally:
        monkeypatch.undo()
        unshare(SQLStore(path), held)
    kept = positions(path)
    assert set(seen) <= set(kept)
    assert len(calls) <= len(kept) + 64 + 8
    again: list[int] = []
    asyncio.run(amap(counted(again), range(400), store=path, run_id="a", changed="keep"))
    assert set(again).isdisjoint(kept) and positions(path) == list(range(400))


def test_an_error_of_the_store_shows_no_results(tmp_path: Path) -> None:
    """Not in its text, and not in the traceback of what caused it: results may be confidential."""
    import traceback

    path = tmp_path / "runs.db"
    writer = share(SQLStore(path), grace=0.0)
    try:
        connection = writer._backend._site.connection()  # type: ignore[attr-defined]
        writer.call(lambda _: connection.exec_driver_sql("PRAGMA max_page_count = 20"))

        async def telling(number: int) -> str:
            return "hush-hush " * 1000

        with pytest.raises(StoreError, match="full") as caught:
            asyncio.run(amap(telling, range(100), store=path, run_id="a"))
        assert "hush" not in "".join(traceback.format_exception(caught.value)).replace('hush-hush " *', "")
    finally:
        unshare(SQLStore(path), writer)


FILLING = """
import asyncio, os, resource, sys, threading
from asyncflow import amap
from asyncflow.durability.sqlstore import SQLStore
from asyncflow.durability.writer import share
from asyncflow.errors import StoreError

path, comes_back = sys.argv[1], sys.argv[2] == "True"
no_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
writer = share(SQLStore(path), grace=20.0 if comes_back else 0.3)

def say(line):
    os.write(1, f"{line}\\n".encode())

def room():
    resource.setrlimit(resource.RLIMIT_FSIZE, no_limit)

def look():
    while writer.trouble is None:
        pass
    say(f"in trouble: {writer.trouble.orig}")
    if comes_back:
        room()

async def step(number):
    if number == 250:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, no_limit[1]))
        threading.Thread(target=look).start()
    say(f"call {number}")
    return "x" * 5000

try:
    found = asyncio.run(amap(step, range(400), store=path, run_id="a", concurrency=4))
    say(f"done {len(found)}")
except StoreError as exc:
    room()
    say(f"ended: {exc}")
"""


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_disk_that_is_really_full(tmp_path: Path, comes_back: bool) -> None:
    """The kernel lets no file grow any more (RLIMIT_FSIZE): what was committed is whole, what was in hand is
    written when there is room again; where none comes, the run ends and says so. Nothing is called twice."""
    path = tmp_path / "runs.db"
    done = subprocess.run(
        [sys.executable, "-c", FILLING, str(path), str(comes_back)],
        cwd=ROOT, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    calls = [int(line.removeprefix("call ")) for line in lines if line.startswith("call ")]
    assert len(set(calls)) == len(calls)
    assert any(line.startswith("in trouble: ") for line in lines)
    kept = positions(path)
    if comes_back:
        assert lines[-1] == "done 400" and kept == list(range(400))
    else:
        assert lines[-1].startswith("ended: ") and "the same command resumes" in lines[-1]
        assert 0 < len(kept) < 400 and len(calls) <= len(kept) + 64 + 4
    with open_run(path, "a") as journal:  # and the file is in order
        assert journal.counts.done == len(kept)


# Places where nothing can be written ------------------------------------------------------------------------


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may write everywhere: not as root, then."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def plain_directory() -> Iterator[Path]:
    """One that anybody may enter, which pytest's are not."""
    directory = Path(tempfile.mkdtemp(prefix="asyncflow-faults-"))
    directory.chmod(0o755)
    yield directory
    directory.chmod(0o755)
    shutil.rmtree(directory)


@pytest.mark.parametrize("there", [False, True])
def test_a_read_only_directory_is_told_before_the_first_call(plain_directory: Path, there: bool) -> None:
    """Whether the store is to be made or is there already: a StoreError that names the file."""
    path = plain_directory / "runs.db"
    if there:
        asyncio.run(amap(str, [1], store=path, run_id="a"))
    plain_directory.chmod(0o555)
    calls: list[int] = []
    before = sorted(plain_directory.iterdir())
    with unprivileged():
        with pytest.raises(StoreError, match=r"runs\.db cannot be opened"):
            asyncio.run(amap(calls.append, [1], store=path, run_id="b"))
    assert calls == [] and sorted(plain_directory.iterdir()) == before


def test_a_read_only_file_is_told_before_the_first_call(plain_directory: Path) -> None:
    """In a directory that may be written to, as another user's file is."""
    path = plain_directory / "runs.db"
    asyncio.run(amap(str, [1], store=path, run_id="a"))
    plain_directory.chmod(0o777)
    path.chmod(0o444)
    sqlite.beside(path, ".lock").chmod(0o666)
    calls: list[int] = []
    with unprivileged():
        with pytest.raises(StoreError, match=r"runs\.db.* (readonly|read-only|cannot be)"):
            asyncio.run(amap(calls.append, [1], store=path, run_id="b"))
    assert calls == [] and positions(path) == [0]


# Files that are not what they were --------------------------------------------------------------------------


def written(path: Path, items: int = 500) -> bytes:
    asyncio.run(amap(counted([]), range(items), store=path, run_id="a"))
    return path.read_bytes()


FILES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "garbage": (lambda data: os.urandom(len(data)), "not a SQLite file"),
    "text": (lambda data: b"id,text\n" * 1000, "not a SQLite file"),
    "zeros": (lambda data: bytes(len(data)), "not a SQLite file"),
    "one byte": (lambda data: data[:1], "not a SQLite file"),
    "the first line": (lambda data: data[:16], "not a SQLite file"),
    "one byte short of a header": (lambda data: data[:99], "not a SQLite file"),
    "a header": (lambda data: data[:100], "cut off"),
    "one page": (lambda data: data[:4096], "cut off"),
    "half": (lambda data: data[: len(data) // 2], "cut off"),
    "one byte short": (lambda data: data[:-1], "cut off"),
    "another program's": (lambda data: data[:68] + b"\0\0\0\0" + data[72:], "some other program"),
    "newer": (lambda data: data[:60] + b"\0\0\x03\xe7" + data[64:], "update asyncflow"),
    "of a version that never was": (lambda data: data[:60] + bytes(4) + data[64:], "cannot be migrated"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_whole_store_is_refused_and_left_alone(tmp_path: Path, case: str) -> None:
    """For writing and for reading, before the first call, and not a byte of it changes."""
    path = tmp_path / "runs.db"
    change, says = FILES[case]
    path.write_bytes(data := change(written(path)))
    calls: list[int] = []
    with pytest.raises(StoreFormatError, match=says):
        asyncio.run(amap(calls.append, [1], store=path, run_id="a"))
    with pytest.raises(StoreFormatError, match=says):
        SQLStore(path).open_reader()
    assert calls == [] and path.read_bytes() == data and SQLStore(path).holder() is None


def test_a_file_whose_log_was_taken_away_with_it_is_not_begun_anew(tmp_path: Path) -> None:
    """An empty file beside a log that holds something is a store that lost its half, not a new one."""
    path = tmp_path / "runs.db"
    path.touch()
    sqlite.beside(path, "-wal").write_bytes(b"something")
    with pytest.raises(StoreFormatError, match="write-ahead log is there: restore the file"):
        SQLStore(path).open_writer()
    assert path.stat().st_size == 0


def test_damage_inside_is_told_when_it_is_met(tmp_path: Path) -> None:
    """A flipped bit in a result: the checksum says which record, and nothing wrong is given out."""
    path = tmp_path / "runs.db"
    data = written(path)
    at = data.rindex(b"499")
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(StoreFormatError, match=r"record \d+ is damaged"):
        asyncio.run(amap(counted([]), range(500), store=path, run_id="a", changed="keep"))


# Where it lies, and what time it is -------------------------------------------------------------------------

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local ext4 rw 0 0
//server/share /mnt/with\\040space cifs rw 0 0
user@host: /mnt/ssh fuse.sshfs rw 0 0
"""


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ("/home/me/runs.db", "nfs4"),
        ("/home/local/runs.db", ""),
        ("/homes/runs.db", ""),
        ("/mnt/with space/runs.db", "cifs"),
        ("/mnt/ssh/deep/down/runs.db", "fuse.sshfs"),
        ("/runs.db", ""),
    ],
)
def test_a_network_file_system_is_known_by_its_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, kind: str
) -> None:
    """The longest mount point above the file decides; a warning names the kind."""
    import warnings

    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    monkeypatch.setattr(sqlite, "MOUNTS", mounts)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sqlite.warn_of_network(Path(where))
    assert [f"({kind})" in str(each.message) for each in caught] == ([True] if kind else [])


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which record counts and which session is the last is a matter of numbers, not of times."""
    import time

    path = tmp_path / "runs.db"
    now = iter(range(10**9, 0, -(10**6)))
    calls: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: float(next(now)))
        for _ in range(3):
            asyncio.run(amap(counted(calls), range(20), store=path, run_id="a"))
    assert sorted(calls) == list(range(20))
    reader = SQLStore(path).open_reader()
    row = reader.run("a")
    reader.close()
    assert row is not None and len(row.sessions) == 3 and status(row, held=False) == "finished"
    assert [each.number for each in row.sessions] == sorted(each.number for each in row.sessions)
