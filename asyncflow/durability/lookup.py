"""Many small questions to a store from event loops: those that wait are answered together, on a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Generic, TypeVar

import anyio

from asyncflow.durability.loops import RunningLoop
from asyncflow.threads import Job, ThreadPool

A = TypeVar("A")

#: Keys in one question to the store.
_AT_ONCE = 500


class Lookup(Generic[A]):
    """Asks `find` for the keys that wait, on a thread, one question at a time.

    Args:
        find: Blocks; returns what there is. What it raises reaches all who asked together.

    While a question is under way the next one gathers, as in a group commit.
    """

    def __init__(self, find: Callable[[list[bytes]], Mapping[bytes, A]]) -> None:
        self._find = find
        self._pool = ThreadPool(1)
        self._lock = threading.Lock()
        self._waiting: list[_Question[A]] = []
        self._busy = False
        self._idle = threading.Event()
        self._idle.set()

    async def ask(self, key: bytes) -> A | None:
        """What there is under the key. A cancel point; the others still get their answers."""
        question: _Question[A] = _Question(key)
        with self._lock:
            self._waiting.append(question)
            if not self._busy:
                self._busy = True
                self._idle.clear()
                self._pool.submit(self._answer, done=self._rest)
        await question.answered.wait()
        if question.error is not None:
            raise question.error.with_traceback(None)  # one error, of all who asked together
        return question.found

    def close(self) -> None:
        """Wait for the question under way. Blocks."""
        self._idle.wait()

    def _answer(self) -> None:
        while True:
            with self._lock:
                questions, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
                if not questions:
                    self._busy = False
                    return
            try:
                found = self._find(list({question.key for question in questions}))
                for question in questions:
                    question.found = found.get(question.key)
            except BaseException as exc:
                for question in questions:
                    question.error = exc
            loops: dict[object, list[_Question[A]]] = {}
            for question in questions:
                loops.setdefault(question.loop.key, []).append(question)
            for together in loops.values():
                with suppress(RuntimeError):  # its loop has ended
                    together[0].loop.from_thread(_Wake(together))

    def _rest(self, _: Job) -> None:
        with self._lock:
            if not self._busy:
                self._idle.set()


class _Question(Generic[A]):
    __slots__ = ("answered", "error", "found", "key", "loop")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.loop = RunningLoop()
        self.answered = anyio.Event()
        self.found: A | None = None
        self.error: BaseException | None = None


class _Wake(Generic[A]):
    __slots__ = ("_questions",)

    def __init__(self, questions: list[_Question[A]]) -> None:
        self._questions = questions

    def __call__(self) -> None:
        for question in self._questions:
            question.answered.set()
