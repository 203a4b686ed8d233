"""One writing process per store: a lock that the kernel takes back from a dead process.

The lock is `flock` on a file beside the database, which also says who holds it. It is never stolen and has no
timeout: a stopped process still holds it, a killed one does not. The file stays when the lock is gone.
"""

from __future__ import annotations

import json
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from asyncflow.errors import StoreError, StoreLockedError

try:
    import fcntl
except ImportError:  # pragma: no cover - not on this platform
    fcntl = None  # type: ignore[assignment]

#: Somebody who asks whether the lock is held takes it for a moment: try again before giving up.
_TRIES, _PAUSE = 5, 0.02

_held: dict[int, Lock] = {}


class Holder(NamedTuple):
    """Who holds a lock, as far as told; `started` is ISO 8601 text in UTC, to the second."""

    pid: int | None = None
    host: str | None = None
    started: str | None = None

    @staticmethod
    def me(now: float | None = None) -> Holder:
        return Holder.of(os.getpid(), socket.gethostname(), time.time() if now is None else now)

    @staticmethod
    def of(pid: int | None, host: str | None, now: float) -> Holder:
        return Holder(pid, host, datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"))

    def __str__(self) -> str:
        if self.pid is None:
            return "another process"
        return f"process {self.pid} on {self.host}, since {self.started}"


class Lock:
    """Held from `__init__` to `release`.

    Attributes:
        dirty: Whether the holder before this one ended without `release(clean=True)`.

    Raises:
        StoreLockedError: If another process, or another part of this one, holds it.
        StoreError: If the file cannot be made or locked here.
    """

    def __init__(self, path: Path, *, what: str) -> None:
        if fcntl is None:  # pragma: no cover
            raise StoreError(f"{what}: this platform has no flock, so no store can be opened safely")
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as exc:
            raise StoreError(f"{what} cannot be opened for writing: {exc.strerror}: {path}") from exc
        try:
            self._take(what)
        except BaseException:
            os.close(self._file)
            raise
        self.dirty = bool(_read(self._file).get("dirty"))
        self._write(dirty=self.dirty)
        _held[self._file] = self

    def _take(self, what: str) -> None:
        for last in (False,) * (_TRIES - 1) + (True,):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if last:
                    raise refusal(what, _holder_in(self._file), _INSTEAD) from None
                time.sleep(_PAUSE)
            except OSError as exc:
                raise StoreError(f"{what} is on a file system without locks: {exc.strerror}") from exc

    def soil(self) -> None:
        """From here on, an end without `release(clean=True)` is told to the next holder."""
        self._write(dirty=True)

    def release(self, *, clean: bool) -> None:
        """Give it back."""
        if clean:
            os.ftruncate(self._file, 0)
        del _held[self._file]
        os.close(self._file)

    def _write(self, *, dirty: bool) -> None:
        data = json.dumps({**Holder.me()._asdict(), "dirty": dirty}).encode() + b"\n"
        try:
            os.pwrite(self._file, data, 0)
            os.ftruncate(self._file, len(data))
        except OSError as exc:
            raise StoreError(f"the lock file cannot be written: {exc.strerror}") from exc


def holder(path: Path) -> Holder | None:
    """Who holds the lock now; None: nobody."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder_in(file)
    finally:
        os.close(file)
    return None


def refusal(what: str, held: Holder, instead: str) -> StoreLockedError:
    """The error for whoever comes second."""
    return StoreLockedError(
        f"{what} is open for writing in {held}. Wait for it or end it; its runs can be looked at meanwhile. "
        f"{instead}",
        pid=held.pid,
        host=held.host,
        started=held.started,
    )


_INSTEAD = "A second run at the same time needs a file of its own"


def _holder_in(file: int) -> Holder:
    found = _read(file)
    return Holder(*(found.get(name) for name in Holder._fields))


def _read(file: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(file, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _after_fork() -> None:
    """A forked child must not keep its parent's locks alive: the parent may die before it."""
    for file in _held:
        os.close(file)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
