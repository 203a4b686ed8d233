"""A store in one SQLite file: made whole or not at all, checked before it is trusted, one writer.

Around the file lie `-wal` and `-shm`, which are part of it while it is open or after a crash, `.lock` (see
`lock`) and `.marks` (see `marks`). SQLite before 3.51.3 can damage a file that two connections write or
checkpoint at once: here exactly one connection does, and readers are opened so that they cannot.
"""

from __future__ import annotations

import glob
import os
import sqlite3
import struct
import sys
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from asyncflow.durability import migrations, tables
from asyncflow.errors import StoreError, StoreFormatError

#: "aflw": what `file` and our own check know the file by.
APPLICATION_ID = 0x61666C77
_MAGIC = b"SQLite format 3\x00"
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs", "lustre", "afs"}
#: What is mounted where, on Linux.
MOUNTS = Path("/proc/mounts")
_CACHE_KIB = 64 * 1024


def beside(path: Path, suffix: str) -> Path:
    """`runs.db` and `.lock` make `runs.db.lock`."""
    return path.with_name(path.name + suffix)


def prepare(path: Path) -> None:
    """Make the file where there is none, migrate an older one, refuse one that is not ours. The lock is held.

    Raises:
        StoreFormatError: If the file is something else, or of a newer version; it is left as it is.
        StoreError: If it cannot be made.
    """
    warn_of_network(path)
    try:
        for draft in path.parent.glob(glob.escape(path.name) + ".new-*"):  # of a process that was killed
            draft.unlink(missing_ok=True)
        if path.exists() and path.stat().st_size:
            version = check_header(path, older=True)
            if version < tables.VERSION:
                migrate(path, version)
        elif beside(path, "-wal").exists() and beside(path, "-wal").stat().st_size:
            raise StoreFormatError(
                f"{path} is empty or gone, but its write-ahead log is there: restore the file"
            )
        else:
            _make(path)
    except OSError as exc:
        raise StoreError(f"{path} cannot be opened for writing: {exc.strerror}") from exc


def check_header(path: Path, *, older: bool = False) -> int:
    """Refuse what is not a store of this version, by the first bytes of the file. Returns the version.

    Args:
        older: Whether one that can be migrated is as good.
    """
    with path.open("rb") as file:
        head = file.read(100)
    if len(head) < 100 or not head.startswith(_MAGIC):
        raise StoreFormatError(
            f"{path} is not a SQLite file. It was left as it is; name another for the store"
        )
    version, application = struct.unpack_from(">i", head, 60)[0], struct.unpack_from(">I", head, 68)[0]
    if application != APPLICATION_ID:
        raise StoreFormatError(f"{path} is a SQLite file of some other program. It was left as it is")
    if _is_cut_off(path, head):
        raise StoreFormatError(f"{path} is cut off: it is shorter than its header says. It was left as it is")
    if version != tables.VERSION and not (older and migrations.OLDEST <= version < tables.VERSION):
        raise StoreFormatError(migrations.refusal(str(path), version))
    return int(version)


def _is_cut_off(path: Path, head: bytes) -> bool:
    """Whether pages are missing at the end. While there is a log, they may be there; then SQLite decides."""
    log = beside(path, "-wal")
    if log.exists() and log.stat().st_size:
        return False
    size, (pages,) = struct.unpack_from(">H", head, 16)[0], struct.unpack_from(">I", head, 28)
    return bool(path.stat().st_size < pages * (65536 if size == 1 else size))


def migrate(path: Path, version: int) -> None:
    """Make a store of today's version of an older one, on a copy that takes its place when it is whole.

    Killed at any moment, the file is the older one or the newer one. Readers that have the older one open go
    on reading that. The lock is held.

    Raises:
        StoreFormatError: If the file is damaged.
        StoreError: If there is no room for a copy, or a reader does not let the log be emptied.
    """
    draft = beside(path, f".new-{os.getpid()}")
    try:
        engine = writing_engine(path)
        try:
            with engine.connect() as connection:
                quick_check(connection, path)
                # All is in the file then, and its log may go.
                busy, *_ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
                if busy:
                    raise StoreError(f"{path} is to be migrated, but is being read: end the readers first")
                connection.exec_driver_sql("VACUUM INTO ?", (str(draft),))
        finally:
            engine.dispose()
        engine = create_engine(f"sqlite:///{draft}", poolclass=StaticPool)
        try:
            with engine.begin() as connection:
                migrations.migrate(connection, version)
                connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.exec_driver_sql(f"PRAGMA user_version = {tables.VERSION}")
            with engine.connect() as connection:
                quick_check(connection, draft)
        finally:
            engine.dispose()
        # Readers keep the old three files; whoever opens the path from now on must not meet two of them.
        for suffix in ("-wal", "-shm"):
            beside(path, suffix).unlink(missing_ok=True)
        _put(draft, path)
    except DBAPIError as exc:
        raise StoreError(f"{path} cannot be migrated: {exc.orig}. It was left as it is") from exc
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            beside(draft, suffix).unlink(missing_ok=True)


def _make(path: Path) -> None:
    """Built under another name and moved: whoever is killed half-way leaves no half-made store."""
    draft = beside(path, f".new-{os.getpid()}")
    engine = create_engine(f"sqlite:///{draft}", poolclass=StaticPool)
    try:
        with engine.begin() as connection:
            tables.metadata.create_all(connection)
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.exec_driver_sql(f"PRAGMA user_version = {tables.VERSION}")
    except Exception as exc:
        raise StoreError(f"{path} cannot be made: {exc}") from exc
    finally:
        engine.dispose()
    _put(draft, path)


def _put(draft: Path, path: Path) -> None:
    """Move a whole file to its place, for good."""
    file = os.open(draft, os.O_RDONLY)
    os.fsync(file)
    os.close(file)
    draft.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def writing_engine(path: Path) -> Engine:
    """An engine of one connection, in autocommit: a group of records is one statement, so one transaction."""
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=StaticPool,
        isolation_level="AUTOCOMMIT",
        connect_args={"check_same_thread": False, "cached_statements": 600},
        hide_parameters=True,
    )
    return _with_pragmas(
        engine,
        "journal_mode = WAL",
        "synchronous = FULL",
        "busy_timeout = 5000",
        f"cache_size = -{_CACHE_KIB}",
    )


def reading_engine(path: Path) -> Engine:
    """An engine of one connection that can neither write nor checkpoint."""
    engine = create_engine(
        f"sqlite:///file:{quote(str(path))}?mode=ro{_still(path)}&uri=true",
        poolclass=StaticPool,
        isolation_level="AUTOCOMMIT",
        connect_args={"check_same_thread": False},
        hide_parameters=True,
    )
    return _with_pragmas(engine, "busy_timeout = 5000", "query_only = ON")


def _still(path: Path) -> str:
    """In a folder that cannot be written to SQLite has no place for what readers and writers share there, and
    opens only what it is told nobody writes to: a file without a log, so a copy, or an archive."""
    log = beside(path, "-wal")
    if os.access(path.parent, os.W_OK) or (log.exists() and log.stat().st_size):
        return ""
    return "&immutable=1"


def quick_check(connection: Any, path: Path) -> None:
    """Read the whole file for damage."""
    found = connection.exec_driver_sql("PRAGMA quick_check(5)").scalars().all()
    if found != ["ok"]:
        raise StoreFormatError(
            f"{path} is damaged: {'; '.join(found)}. It was left as it is; "
            "`sqlite3 FILE .recover` can save what is readable"
        )


def retryable(error: BaseException) -> bool:
    """A full disk or a busy file may pass. A failed sync may not be repeated: the kernel has dropped the
    pages by then, and the second one would succeed without them."""
    original = getattr(error, "orig", error)
    code = getattr(original, "sqlite_errorcode", None)
    if code is None:
        return False
    if code in (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC):
        return False
    return code & 0xFF in (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    )


def _with_pragmas(engine: Engine, *pragmas: str) -> Engine:
    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _: Any) -> None:
        for pragma in ("mmap_size = 0", *pragmas):
            connection.execute(f"PRAGMA {pragma}").close()

    return engine


def warn_of_network(path: Path) -> None:
    kind = _file_system(path)
    if kind in _NETWORK:
        warnings.warn(
            f"{path} is on a network file system ({kind}), where locks and syncs may not be kept: "
            "put the store on a local disk",
            RuntimeWarning,
            stacklevel=2,
        )


def _file_system(path: Path) -> str:
    """What the path lies on, where the system tells; else nothing."""
    if sys.platform != "linux":
        return ""
    best, kind = "", ""
    try:
        lines = MOUNTS.read_text().splitlines()
    except OSError:
        return ""
    where = str(path.parent.resolve()) + "/"
    for line in lines:
        fields = line.split(" ")
        point = fields[1].replace("\\040", " ").rstrip("/") + "/"
        if where.startswith(point) and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind
