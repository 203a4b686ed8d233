"""Stores of older versions become today's, on a copy, and are never half of one."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from asyncflow.durability import migrations, open_run, sqlite, tables
from asyncflow.durability.sqlstore import SQLStore
from asyncflow.errors import StoreError, StoreFormatError

ROOT = Path(__file__).resolve().parents[2]

#: The schema of version 1, as it was.
VERSION_1 = """
CREATE TABLE runs (number INTEGER NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, created DOUBLE NOT NULL,
    fingerprint TEXT NOT NULL, PRIMARY KEY (number), UNIQUE (id));
CREATE TABLE sessions (number INTEGER NOT NULL, run INTEGER NOT NULL, started DOUBLE NOT NULL, ended DOUBLE,
    how TEXT, PRIMARY KEY (number));
CREATE INDEX ix_sessions_run ON sessions (run);
CREATE TABLE places (number INTEGER NOT NULL, id BIGINT NOT NULL, run INTEGER NOT NULL, path TEXT NOT NULL,
    visit INTEGER NOT NULL, PRIMARY KEY (number), UNIQUE (id));
CREATE INDEX ix_places_run ON places (run);
CREATE TABLE records (seq INTEGER NOT NULL, run INTEGER NOT NULL, place BIGINT NOT NULL, "key" BLOB NOT NULL,
    session INTEGER NOT NULL, kind SMALLINT NOT NULL, attempts INTEGER NOT NULL, position BIGINT NOT NULL,
    label TEXT, began DOUBLE NOT NULL, at DOUBLE NOT NULL, data BLOB NOT NULL, usage TEXT,
    checksum BIGINT NOT NULL, PRIMARY KEY (seq), CONSTRAINT records_key UNIQUE (place, "key", session));
CREATE INDEX records_not_ok ON records (place, "key", kind, session) WHERE kind <> 0;
CREATE TABLE deaths (number INTEGER NOT NULL, place BIGINT NOT NULL, "key" BLOB NOT NULL,
    session INTEGER NOT NULL, alone BOOLEAN NOT NULL, PRIMARY KEY (number),
    CONSTRAINT deaths_key UNIQUE (place, "key", session));
PRAGMA application_id = 0x61666C77;
PRAGMA user_version = 1;
INSERT INTO runs VALUES (1, 'a', 'name', 10.0, '{}');
INSERT INTO sessions VALUES (1, 1, 10.0, 20.0, 'finished');
INSERT INTO places VALUES (1, 5, 1, '["n"]', 0);
INSERT INTO records VALUES (1, 1, 5, x'61', 1, 0, 1, 0, NULL, 1.0, 2.0, x'31', NULL, 1826703395);
"""


def old(path: Path) -> SQLStore:
    direct = sqlite3.connect(path)
    direct.executescript(VERSION_1)
    direct.execute("PRAGMA journal_mode = WAL")
    direct.close()
    return SQLStore(path)


def whole(store: SQLStore) -> None:
    """Of today's version, with all that the old one held."""
    store.open_writer().close()
    reader = store.open_reader()
    (run,) = reader.runs()
    assert (run.id, [(each.how, each.pid) for each in run.sessions]) == ("a", [("finished", None)])
    assert [record.data for _, record in reader.following(1, 0, 10)] == [b"1"]
    reader.close()


def schema(path: Path) -> dict[str, object]:
    direct = sqlite3.connect(path)
    names = [name for (name,) in direct.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found: dict[str, object] = {
        name: direct.execute(f"PRAGMA table_info({name})").fetchall() for name in names
    }
    found["indexes"] = sorted(
        tuple(row) for row in direct.execute("SELECT name, tbl_name FROM sqlite_master WHERE type = 'index'")
    )
    found["version"] = direct.execute("PRAGMA user_version").fetchone()
    direct.close()
    return found


def test_an_older_store_is_migrated_when_it_is_opened_for_writing(tmp_path: Path) -> None:
    """It holds what it held, and its schema is that of a new one; nothing is left beside it."""
    store = old(tmp_path / "old.db")
    whole(store)
    SQLStore(tmp_path / "new.db").open_writer().close()
    assert schema(tmp_path / "old.db") == schema(tmp_path / "new.db")
    assert {each.name for each in tmp_path.iterdir()} == {"old.db", "old.db.lock", "new.db", "new.db.lock"}


def test_every_version_has_its_step() -> None:
    """From the oldest on, one step each."""
    assert list(migrations.STEPS) == list(range(migrations.OLDEST, tables.VERSION))


def test_reading_alone_does_not_migrate(tmp_path: Path) -> None:
    """A reader writes nothing: it says what migrates."""
    store = old(tmp_path / "runs.db")
    before = store.path.read_bytes()
    with pytest.raises(
        StoreFormatError, match="has version 1 .* migrated when it is next opened for writing"
    ):
        store.open_reader()
    assert store.path.read_bytes() == before


def test_what_was_still_in_the_log_is_migrated_too(tmp_path: Path) -> None:
    """A process of the older version was killed: its records are in the write-ahead log."""
    source = tmp_path / "source.db"
    direct = sqlite3.connect(source, isolation_level=None)
    made, rows = VERSION_1.split("INSERT", 1)
    direct.executescript(made)
    direct.execute("PRAGMA journal_mode = WAL")
    direct.executescript(f"INSERT{rows}")
    store = SQLStore(tmp_path / "runs.db")
    for suffix in ("", "-wal"):
        sqlite.beside(store.path, suffix).write_bytes(sqlite.beside(source, suffix).read_bytes())
    direct.close()
    assert store.path.read_bytes().count(b"finished") == 0
    whole(store)


def test_readers_of_the_older_file_keep_it(tmp_path: Path) -> None:
    """One that has it open goes on reading what it was; the next one reads the new one."""
    store = old(tmp_path / "runs.db")
    direct = sqlite3.connect(f"file:{store.path}?mode=ro", uri=True, isolation_level=None)
    assert direct.execute("SELECT count(*) FROM records").fetchone() == (1,)
    with open_run(store, "b"):
        assert direct.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    direct.close()
    reader = store.open_reader()
    assert [run.id for run in reader.runs()] == ["a", "b"]
    reader.close()


#: Where a process dies while it migrates: module, function, before or after, at which call.
POINTS = {
    "before the copy": ("quick_check", True, 1),
    "copy made": ("migrations.migrate", True, 1),
    "copy migrated": ("migrations.migrate", False, 1),
    "copy checked": ("quick_check", False, 2),
    "log removed": ("_put", True, 1),
    "moved": ("_put", False, 1),
}
DYING = """
import os, sys
from asyncflow.durability import sqlite
from asyncflow.durability.sqlstore import SQLStore

path, name, before, left = sys.argv[1], sys.argv[2], sys.argv[3] == "True", int(sys.argv[4])
*owner, name = name.split(".")
owner = getattr(sqlite, owner[0]) if owner else sqlite
original = getattr(owner, name)

def dying(*args, **options):
    global left
    left -= 1
    if before and left == 0:
        os.kill(os.getpid(), 9)
    original(*args, **options)
    if left == 0:
        os.kill(os.getpid(), 9)

setattr(owner, name, dying)
SQLStore(path).open_writer().close()
"""


@pytest.mark.parametrize("point", POINTS)
def test_killed_in_the_middle_it_is_the_old_one_or_the_new_one(tmp_path: Path, point: str) -> None:
    """Wherever it dies, the next opening finds all that the old one held."""
    store = old(tmp_path / "runs.db")
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(store.path), *map(str, POINTS[point])],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=50,
    )
    assert done.returncode == -signal.SIGKILL
    assert schema(store.path)["version"] in ((1,), (tables.VERSION,))
    whole(store)
    assert not [each.name for each in tmp_path.iterdir() if ".new" in each.name]


def test_without_room_for_a_copy_the_old_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is told what is the matter; nothing is left of the copy."""
    store = old(tmp_path / "runs.db")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "_put", full)
        with pytest.raises(StoreError, match="No space left"):
            store.open_writer()
    assert {each.name for each in tmp_path.iterdir()} == {"runs.db", "runs.db.lock"}
    whole(store)
