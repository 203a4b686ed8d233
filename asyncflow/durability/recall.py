"""Reading a run back: in sequence where it is asked for in sequence, by key where it is not, in flat memory.

Whoever asks for a record that is not at hand waits for a thread, which answers all that wait with one
question, and reads on from there: records lie in the order in which items finished, which is near the order
in which they are asked for again. How far it reads on is doubled while that is of use, and halved while it is
not (a shuffled input), so neither costs much.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from contextlib import suppress
from typing import Any, Protocol

from asyncflow.durability.store import Record, StoreReader
from asyncflow.durability.writer import Home
from asyncflow.threads import Job, ThreadPool

_FEWEST, _MOST = 16, 1024


class Asker(Home, Protocol):
    """The part of the engine's host that asking needs."""

    def waker(self) -> Any: ...


class _Question:
    __slots__ = ("error", "found", "home", "keys", "waker")

    def __init__(self, keys: list[tuple[int, bytes]], home: Asker) -> None:
        self.keys = keys
        self.home = home
        self.waker = home.waker()
        self.found: dict[bytes, Record] = {}
        self.error: BaseException | None = None


class Recall:
    """The records of one run that earlier sessions left.

    Attributes:
        questions: How often the store was asked.
    """

    def __init__(self, reader: StoreReader, run: int) -> None:
        self._reader = reader
        self._run = run
        self._pool = ThreadPool(1)
        self._lock = threading.Lock()
        self._waiting: list[_Question] = []
        self._busy = False
        self._idle = threading.Event()
        self._idle.set()
        # Two generations: what is not taken from the older one by the next reading is let go.
        self._ahead: dict[bytes, Record] = {}
        self._before: dict[bytes, Record] = {}
        self._read = 0
        self._cursor = 0  # where the last reading ended; 0: there is nothing to go on from
        self._reach = 64
        self.questions = 0

    def take(self, key: bytes) -> Record | None:
        """The record, if it was read ahead. Each is given once."""
        record = self._ahead.pop(key, None)
        if record is None:
            return self._before.pop(key, None)
        if not self._busy and self._cursor and len(self._ahead) * 2 <= self._read:
            self._start()  # so that it is there by the time it is asked for
        return record

    async def ask(self, keys: list[tuple[int, bytes]], home: Asker) -> dict[bytes, Record]:
        """The records of these (place, key), by key. A cancel point.

        Raises:
            StoreError: If the store cannot be read, or a record is damaged.
        """
        question = _Question(keys, home)
        self._start(question)
        await question.waker.wait()
        if question.error is not None:
            raise question.error.with_traceback(None)  # one error, of all who asked together
        return question.found

    def close(self) -> None:
        """Wait for a question under way and close the reader. Blocks."""
        self._idle.wait()
        self._reader.close()

    def _start(self, question: _Question | None = None) -> None:
        with self._lock:
            if question is not None:
                self._waiting.append(question)
            if not self._busy:
                self._busy = True
                self._idle.clear()
                self._pool.submit(self._answer, done=self._answered)

    def _answer(self) -> None:
        while True:
            with self._lock:
                questions, self._waiting = self._waiting, []
            try:
                if questions:
                    self._look_up(questions)
                elif self._cursor and len(self._ahead) * 2 <= self._read:
                    self._read_on(self._cursor)
                else:
                    with self._lock:
                        if not self._waiting:
                            self._busy = False
                            return
            except BaseException as exc:
                self._cursor = 0  # no reading on from there: who asks for what is there is told
                for question in questions:
                    question.error = exc
            homes: dict[object, list[_Question]] = {}
            for question in questions:
                homes.setdefault(question.home.key, []).append(question)
            for asked in homes.values():
                with suppress(RuntimeError):  # its loop has ended
                    asked[0].home.from_thread(_Wake(asked))

    def _answered(self, job: Job) -> None:
        with self._lock:
            if not self._busy:
                self._idle.set()

    def _look_up(self, questions: list[_Question]) -> None:
        missing = self._fill(questions, {})
        if missing and self._cursor and len(self._ahead) * 2 <= self._read:
            self._read_on(self._cursor)
            missing = self._fill(questions, {})
        if not missing:
            return
        self.questions += 1
        rows = self._reader.find([(place, key) for key, place in missing.items()])
        self._fill(questions, {record.key: record for _, record in rows})
        if rows:
            given = {record.key for _, record in rows}
            self._read_on(sorted(seq for seq, _ in rows)[len(rows) // 2], given)

    def _fill(self, questions: list[_Question], found: dict[bytes, Record]) -> dict[bytes, int]:
        """Give what is at hand, and return the keys that are not, with their places."""
        missing: dict[bytes, int] = {}
        for question in questions:
            for place, key in question.keys:
                if key in question.found:
                    continue
                record = found.get(key) or self._ahead.pop(key, None) or self._before.pop(key, None)
                if record is not None:
                    question.found[key] = record
                else:
                    missing[key] = place
        return missing

    def _read_on(self, after: int, given: Collection[bytes] = ()) -> None:
        useful = len(self._ahead) * 2 <= self._read
        self._reach = min(_MOST, self._reach * 2) if useful else max(_FEWEST, self._reach // 2)
        rows = self._reader.following(self._run, after, self._reach)
        ahead = {record.key: record for _, record in rows if record.key not in given}
        self._before, self._ahead, self._read = self._ahead, ahead, len(ahead)
        self._cursor = rows[-1][0] if rows else 0


class _Wake:
    __slots__ = ("_questions",)

    def __init__(self, questions: list[_Question]) -> None:
        self._questions = questions

    def __call__(self) -> None:
        for question in self._questions:
            question.waker.set()
