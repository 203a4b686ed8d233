"""Killed at any moment: nothing told durable is lost or run again, and the run comes out right."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from asyncflow.durability import open_run
from asyncflow.durability.sqlstore import SQLStore
from asyncflow.durability.store import OK, PlaceRow, Record
from asyncflow.errors import StoreError, StoreFormatError
from tests.crash.store_kill import ON_SERVER, POINTS

ROOT = Path(__file__).resolve().parents[2]


def kill_loop(where: Path | str, kills: int, seed: int, point: str | None = None) -> int:
    """Run the loop in a process without threads, so that it may fork. Returns how many children died."""
    if isinstance(where, Path):
        where.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.crash.store_kill", str(where), str(kills), str(seed)]
    run = subprocess.run(
        [*command, *([point] if point else [])], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, f"{point or 'random'}, seed {seed}:\n{run.stderr[-4000:]}"
    return int(run.stdout.split("deaths=")[1].split()[0])


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """Twelve kills of one run, wherever they fall: nothing lost, at most the items in flight run again."""
    assert kill_loop(tmp_path / "run", 12, seed=1) > 3


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_named_points(tmp_path: Path, point: str) -> None:
    """In every step of a commit, of opening, resuming and closing, four times in a row."""
    assert kill_loop(tmp_path / "run", 4, seed=2, point=point) >= 1


def test_killed_at_random_moments_on_a_server(postgres_url: str) -> None:
    """The same on PostgreSQL, whose locks go with the connections of the dead."""
    assert kill_loop(postgres_url, 6, seed=1) > 1


@pytest.mark.parametrize("point", ON_SERVER)
def test_killed_at_named_points_on_a_server(postgres_url: str, point: str) -> None:
    """In the steps that are not the same there."""
    assert kill_loop(postgres_url, 3, seed=2, point=point) >= 1


def test_killed_during_resume_ten_times_in_a_row(tmp_path: Path) -> None:
    """A resume loses nothing either, however often it is itself cut off."""
    assert kill_loop(tmp_path / "run", 10, seed=3, point="during resume, by key") >= 8


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(10))
def test_killed_two_hundred_times(tmp_path: Path, seed: int) -> None:
    """The long form of the random one."""
    assert kill_loop(tmp_path / "run", 20, seed=100 + seed) > 3


GROUPS, SIZE = 12, 9


def unfinished(directory: Path) -> Path:
    """A store whose writer was cut off after several groups: the database, its log, lock and marks."""
    source = directory / "source"
    source.mkdir()
    store = SQLStore(source / "runs.db")
    writer = store.open_writer()
    run, session = writer.start("a", "n", "{}", 1.0)
    for group in range(GROUPS):
        numbers = range(group * SIZE, (group + 1) * SIZE)
        rows = [
            Record(run, 5, n.to_bytes(16, "big"), session, OK, 1, n, None, 1.0, 2.0, b"1" * 300, None)
            for n in numbers
        ]
        writer.append([PlaceRow(5, run, ("n",), 0)] if group == 0 else [], rows)
    target = directory / "copy"
    shutil.copytree(source, target)
    writer.close()
    return target


def opened(directory: Path) -> list[int]:
    """Positions of all records after opening for writing, which recovers the log."""
    store = SQLStore(directory / "runs.db")
    writer = store.open_writer()
    reader = store.open_reader()
    try:
        return [record.position for _, record in reader.following(1, 0, 10_000)]
    finally:
        reader.close()
        writer.close()


def cuts(log: bytes) -> list[int]:
    """The end of each frame of a write-ahead log, and one byte into the next."""
    size = struct.unpack_from(">I", log, 8)[0] + 24
    ends = range(32, len(log) + 1, size)
    return [0, 31, *ends, *(end + 1 for end in list(ends)[::5] if end < len(log))]


def test_a_cut_log_opens_with_a_prefix_of_commits(tmp_path: Path) -> None:
    """Truncated at every frame, as by a loss of power: whole groups from the first on, never a part of one.
    Where the marks say that more was committed, it is refused instead."""
    whole = unfinished(tmp_path)
    log = (whole / "runs.db-wal").read_bytes()
    lengths = set()
    for at in cuts(log):
        trial = tmp_path / "trial"
        shutil.copytree(whole, trial)
        (trial / "runs.db-shm").unlink(missing_ok=True)
        (trial / "runs.db-wal").write_bytes(log[:at])
        if at < len(log):
            with pytest.raises(StoreFormatError, match="were committed"):
                opened(trial)
            (trial / "runs.db.marks").unlink()
        found = opened(trial)
        assert found == list(range(len(found))) and len(found) % SIZE == 0, at
        lengths.add(len(found))
        shutil.rmtree(trial)
    assert lengths == {SIZE * n for n in range(GROUPS + 1)}


def test_a_flipped_bit_in_the_log_is_never_taken_for_data(tmp_path: Path) -> None:
    """SQLite's checksums end the log there: a prefix of commits again, or a refusal."""
    whole = unfinished(tmp_path)
    log = bytearray((whole / "runs.db-wal").read_bytes())
    for at in range(40, len(log), len(log) // 25):
        trial = tmp_path / "trial"
        shutil.copytree(whole, trial)
        (trial / "runs.db-shm").unlink(missing_ok=True)
        (trial / "runs.db.marks").unlink()
        (trial / "runs.db-wal").write_bytes(log[:at] + bytes([log[at] ^ 0x40]) + log[at + 1 :])
        try:
            found = opened(trial)
            assert found == list(range(len(found))) and len(found) % SIZE == 0, at
        except StoreError:
            pass
        shutil.rmtree(trial)


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
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_a_killed_process_leaves_the_names_of_what_was_in_flight(tmp_path: Path) -> None:
    """Begun and not recorded: counted at the next opening, once, and not after a clean end."""
    path = tmp_path / "runs.db"
    for deaths in (1, 2):
        subprocess.run([sys.executable, "-c", IN_FLIGHT, str(path)], cwd=ROOT, check=False, timeout=60)
        with open_run(str(path), "a") as journal:
            assert (journal.counts.done, journal.counts.in_flight) == (1, 2)
        reader = SQLStore(path).open_reader()
        assert len(reader.deaths(1)) == 2 * deaths
        assert not any(death.alone for death in reader.deaths(1))
        reader.close()
    with open_run(str(path), "a") as journal:
        assert journal.counts.in_flight == 0
