"""What is in flight, told to whoever comes after a dead process: rows of a table that costs no sync.

Items are marked by a thread with a connection of its own, some milliseconds behind: whatever began and ended
in between costs nothing. So an item that ends its process within its first milliseconds may leave no mark.
That holds once: where a run goes on after a death, the first items are marked before they begin (`careful`),
and so is one that runs alone. The table is empty after a crash of the server, and then nothing is under
suspicion.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, select

from asyncflow.durability.marks import NO_SLOT, Mark
from asyncflow.durability.postgres import schema
from asyncflow.durability.postgres.address import Address

#: Seconds between two writings.
_PACE = 0.02
#: Items that are marked before they begin, after a death: those that were in flight then come early.
_CAREFUL = 1000
#: Seconds for which somebody waits for the table.
_PATIENCE = 1.0
_WRITE = """
WITH gone AS (DELETE FROM marks WHERE writer = %b AND slot = ANY (%b))
INSERT INTO marks (writer, slot, place, key, session)
SELECT %b, * FROM unnest(%b::int8[], %b::int8[], %b::bytea[], %b::int4[]) ON CONFLICT DO NOTHING
"""


class TableMarks:
    """See `Marks`. Nothing here raises: what cannot be marked is under no suspicion."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._writer = secrets.randbits(62)
        self._changed = threading.Condition()
        self._slot = 0
        self._new: dict[int, tuple[int, bytes, int]] = {}
        self._gone: list[int] = []
        self._waiting = self._urgent = self._closing = self._forked = False
        self._written = self._careful = 0
        self._driver: Any = None
        self._thread: threading.Thread | None = None

    def set(self, key: bytes, place: int, session: int) -> int:
        if self._forked:
            return NO_SLOT
        with self._changed:
            self._slot = slot = self._slot + 1
            self._new[slot] = (place, key, session)
            if self._waiting:
                self._changed.notify_all()
            elif self._thread is None:
                self._thread = threading.Thread(target=self._run, name="asyncflow-marks", daemon=True)
                self._thread.start()
        if self._careful > 0:
            self._careful -= 1
            self.flush()
        return slot

    def clear(self, slot: int) -> None:
        if slot == NO_SLOT or self._forked:
            return
        with self._changed:
            if self._new.pop(slot, None) is None:
                self._gone.append(slot)
                if self._waiting:
                    self._changed.notify_all()

    def committed(self, last: int) -> None:
        pass

    def careful(self) -> None:
        """Something has ended a process before: the next items are marked before they begin."""
        self._careful = _CAREFUL

    def flush(self) -> None:
        """Wait until all that was set is in the table, or a second; if in vain, not for each mark again."""
        with self._changed:
            if self._thread is None or self._forked:
                return
            self._urgent = True
            self._changed.notify_all()
            wanted = self._slot
            if not self._changed.wait_for(lambda: self._written >= wanted, _PATIENCE):
                self._careful = 0

    def close(self) -> None:
        """Take all marks away: nothing is in flight. Where the server is away they stay, as after a death."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        if self._driver is not None:
            with contextlib.suppress(Exception):
                self._driver.execute("DELETE FROM marks WHERE writer = %s", (self._writer,))
            self._driver.close()

    def abandon(self) -> list[Any]:
        """In a forked child, where the thread is not: the connections that it must not use."""
        self._forked = True
        self._changed = threading.Condition()  # somebody may have held the lock
        return [] if self._driver is None else [self._driver]

    def _run(self) -> None:
        next_one = 0.0
        while True:
            with self._changed:
                self._waiting = True
                self._changed.wait_for(lambda: self._new or self._gone or self._closing)
                self._waiting = False  # until the next writing nobody need wake this thread for a mark
                pause = next_one - time.monotonic()
                if pause > 0:
                    self._changed.wait_for(lambda: self._urgent or self._closing, pause)
                new, self._new = self._new, {}
                gone, self._gone = self._gone, []
                taken, self._urgent = self._slot, False
                if not (new or gone):
                    if self._closing:
                        return
                    continue
            written = self._write(new, gone)
            with self._changed:
                self._written = taken  # or given up for now: nobody waits for a table that is not there
                self._changed.notify_all()
            if not written:
                self._careful = 0
                if self._closing:
                    return
                self._keep(new, gone)
            next_one = time.monotonic() + _PACE

    def _write(self, new: dict[int, tuple[int, bytes, int]], gone: list[int]) -> bool:
        try:
            if self._driver is None or self._driver.closed:
                self._driver = self._address.connect(search_path=schema.NAME)
                self._driver.execute("SET synchronous_commit = off")
            columns = zip(*new.values(), strict=True) if new else ((), (), ())
            arrays = (list(new), *map(list, columns))
            self._driver.execute(_WRITE, (self._writer, gone, self._writer, *arrays))
        except Exception:  # an error of any kind: there is no mark, and that is all
            return False
        return True

    def _keep(self, new: dict[int, tuple[int, bytes, int]], gone: list[int]) -> None:
        """For the next try, but for what has ended since."""
        with self._changed:
            ended = {*gone, *self._gone}
            self._new = {slot: mark for slot, mark in new.items() if slot not in ended} | self._new
            self._gone = [slot for slot in ended if slot not in new]
            self._changed.wait_for(lambda: self._closing, 1.0)


def take(connection: Connection, sessions: Sequence[int]) -> list[list[Mark]]:
    """The marks of the processes that these sessions were of, for each process; they are taken away."""
    table = schema.marks
    if not sessions:
        return []
    writers = select(table.c.writer).where(table.c.session.in_(sessions))
    dead = delete(table).where(table.c.writer.in_(writers))
    found: dict[int, list[Mark]] = {}
    for row in connection.execute(
        dead.returning(table.c.writer, table.c.key, table.c.place, table.c.session)
    ).all():
        found.setdefault(row.writer, []).append(Mark(row.key, row.place, row.session, 1))
    return list(found.values())
