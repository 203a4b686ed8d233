"""Answers on their way to the store: found at once, written together, let go where that fails."""

from __future__ import annotations

import logging
import threading

from asyncflow.durability.store import Answer, StoreWriter
from asyncflow.durability.writer import Writer
from asyncflow.errors import StoreError

_log = logging.getLogger("asyncflow")

#: Bytes that may wait. Past this the disk does not keep up, and further answers are let go.
WAITING_BYTES = 64 * 1024 * 1024
#: Answers written between two looks for expired ones.
_SWEEP = 1000


class Outbox:
    """What waits to be written by a store's one writer.

    Args:
        most: How many answers are left in the store; None: all.

    Attributes:
        writer: Who writes them.
        kept, lost: Answers written, and let go.

    `put` never waits. While a group is being written the next one gathers. An answer that cannot be written
    is let go, with a warning the first time: it will be asked for again, and nothing else stops.
    """

    def __init__(self, writer: Writer, most: int | None) -> None:
        self.writer = writer
        self._most = most
        self._lock = threading.Lock()
        self._waiting: dict[bytes, Answer] = {}
        self._bytes = 0
        self._posted = False
        self._unswept = 0
        self._warned = False
        self.kept = self.lost = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def find(self, key: bytes) -> Answer | None:
        """What waits under the key."""
        return self._waiting.get(key)

    def put(self, answer: Answer) -> None:
        """Hand in an answer, in the place of one that waits under its key. From any thread."""
        with self._lock:
            before = self._waiting.get(answer.key)
            size = self._bytes + len(answer.data) - (0 if before is None else len(before.data))
            if size > WAITING_BYTES:
                self.lost += 1
                return
            self._bytes = size
            self._waiting[answer.key] = answer
            if self._posted:
                return
            self._posted = True
        self.writer.post(self._write, self._failed)

    def delete(self, now: float | None) -> None:
        """Delete from the store what has expired by `now`; None: all, and what waits. Blocks."""

        def drop(backend: StoreWriter) -> None:
            if now is None:
                with self._lock:
                    self._waiting.clear()
                    self._bytes = 0
            backend.drop_answers(now)

        self.writer.call(drop)

    def flush(self) -> None:
        """Return once nothing waits. Blocks."""
        try:
            while self._waiting:
                self.writer.call(lambda backend: None)  # its turn comes after what is being written
        except StoreError:
            pass  # the writer has given up, and what waited was let go

    def _write(self, backend: StoreWriter) -> None:
        """All that waits, in one transaction."""
        with self._lock:
            self._posted = False
            answers = list(self._waiting.values())
        if not answers:
            return
        backend.keep_answers(answers, self._most)
        self.kept += len(answers)
        self._gone(answers)
        self._unswept += len(answers)
        if self._unswept >= _SWEEP:
            self._unswept = 0
            backend.drop_answers(answers[-1].at)

    def _failed(self, error: BaseException) -> None:
        with self._lock:
            self._posted = False
            answers = list(self._waiting.values())
        self.lost += len(answers)
        self._gone(answers)
        if not self._warned:
            self._warned = True
            reason = getattr(error, "orig", None) or error
            _log.warning("asyncflow: answers cannot be kept in %r: %s", self.writer, reason)

    def _gone(self, answers: list[Answer]) -> None:
        with self._lock:
            for answer in answers:
                if self._waiting.get(answer.key) is answer:
                    del self._waiting[answer.key]
                    self._bytes -= len(answer.data)
