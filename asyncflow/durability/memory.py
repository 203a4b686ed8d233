"""A store that lives as long as its object: for tests, and the fake of the port."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace

from asyncflow.durability.lock import Holder
from asyncflow.durability.marks import Mark, Marks, NoMarks
from asyncflow.durability.store import (
    AGAIN,
    FAILED,
    INTERRUPTED,
    OK,
    Answer,
    Death,
    PlaceCount,
    PlaceRow,
    Record,
    RunRow,
    Session,
)
from asyncflow.durability.usage import total
from asyncflow.errors import StoreLockedError
from asyncflow.outcome import Spent

_numbers = itertools.count(1)


class MemoryStore:
    """Runs in memory. Pass the same object again to resume.

    Attributes:
        failures: What the next calls of `append` and `keep_answers` raise, in order: for tests of a store
            in trouble. An OSError counts as one that may pass, anything else as final.
    """

    def __init__(self) -> None:
        self.key = f"memory:{next(_numbers)}"
        self.failures: list[Exception] = []
        self._lock = threading.Lock()
        self._log: list[Record] = []
        self._latest: dict[tuple[int, bytes], int] = {}
        self._places: dict[int, PlaceRow] = {}
        self._runs: list[RunRow] = []
        self._deaths: list[Death] = []
        self._answers: dict[bytes, Answer] = {}
        self._sessions = itertools.count(1)

    def open_writer(self) -> _MemoryWriter:
        if not self._lock.acquire(blocking=False):
            raise StoreLockedError("this memory store is open for writing elsewhere in the process")
        for run in self._runs:
            for each in run.sessions:
                if each.how is None:
                    self._close(each.number, INTERRUPTED, None)
        return _MemoryWriter(self)

    def _close(self, session: int, how: str, now: float | None) -> None:
        for at, run in enumerate(self._runs):
            sessions = tuple(
                replace(each, ended=now, how=how) if each.number == session else each for each in run.sessions
            )
            self._runs[at] = RunRow(run.number, run.id, run.name, run.created, run.fingerprint, sessions)

    def open_reader(self) -> _MemoryReader:
        return _MemoryReader(self)

    def holder(self, run_id: str | None = None) -> str | None:
        return "this process" if self._lock.locked() else None

    def __repr__(self) -> str:
        return f"<MemoryStore runs={len(self._runs)} records={len(self._log)}>"


class _MemoryWriter:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.marks: Marks = NoMarks()

    def start(self, run_id: str, name: str, fingerprint: str, now: float) -> tuple[int, int]:
        store = self._store
        who = Holder.me()
        session = Session(next(store._sessions), now, None, None, who.pid, who.host)
        for at, run in enumerate(store._runs):
            if run.id == run_id:
                sessions = (*run.sessions, session)
                store._runs[at] = RunRow(run.number, run_id, run.name, run.created, fingerprint, sessions)
                return run.number, session.number
        number = max((run.number for run in store._runs), default=0) + 1
        store._runs.append(RunRow(number, run_id, name, now, fingerprint, (session,)))
        return number, session.number

    def end(self, session: int, how: str, now: float) -> None:
        self._store._close(session, how, now)

    def append(self, places: Sequence[PlaceRow], records: Sequence[Record]) -> None:
        store = self._store
        if store.failures:
            raise store.failures.pop(0)
        for place in places:
            store._places.setdefault(place.id, place)
        for record in records:
            known = store._latest.get((record.place, record.key))
            if known is None or store._log[known].session < record.session:
                store._latest[record.place, record.key] = len(store._log)
                store._log.append(record)

    def bury(self, marks: Sequence[Mark]) -> None:
        store = self._store
        told = {(death.place, death.key, death.session) for death in store._deaths}
        recorded = {(record.place, record.key, record.session) for record in store._log}
        for mark in marks:
            who = (mark.place, mark.key, mark.session)
            if who not in told | recorded:
                store._deaths.append(Death(*who, len(marks) == 1))

    def remove(self, run: int) -> None:
        store = self._store
        of_run = [each for row in store._runs if row.number == run for each in row.sessions]
        if any(each.how is None for each in of_run):
            raise StoreLockedError("the run is at work in this process: it cannot be removed")
        sessions = {each.number for each in of_run}
        store._runs = [row for row in store._runs if row.number != run]
        store._log = [record for record in store._log if record.run != run]
        store._latest = {(record.place, record.key): at for at, record in enumerate(store._log)}
        store._places = {id: place for id, place in store._places.items() if place.run != run}
        store._deaths = [death for death in store._deaths if death.session not in sessions]

    def prepare_answers(self) -> None:
        """There is room."""

    def keep_answers(self, answers: Sequence[Answer], most: int | None = None) -> None:
        kept = self._store._answers
        if self._store.failures:
            raise self._store.failures.pop(0)
        for answer in answers:
            kept.pop(answer.key, None)
            kept[answer.key] = answer
        if most is not None:
            for key in list(kept)[: max(0, len(kept) - most)]:
                del kept[key]

    def drop_answers(self, now: float | None = None) -> None:
        kept = self._store._answers
        for answer in list(kept.values()):
            if now is None or (answer.expires is not None and answer.expires <= now):
                del kept[answer.key]

    def compact(self) -> tuple[int, int]:
        size = sum(len(record.data) for record in self._store._log)
        return size, size

    def retryable(self, error: BaseException) -> bool:
        return isinstance(error, OSError)

    def close(self, *, clean: bool = True) -> None:
        self._store._lock.release()

    def abandon(self) -> None:
        """A forked child has a copy of the memory: nothing is shared."""


class _MemoryReader:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        real, self._store = self._store, copy(self._store)
        for name in ("_log", "_latest", "_places", "_runs", "_deaths"):
            setattr(self._store, name, copy(getattr(real, name)))
        try:
            yield
        finally:
            self._store = real

    def runs(self) -> list[RunRow]:
        return list(self._store._runs)

    def run(self, run_id: str) -> RunRow | None:
        return next((run for run in self._store._runs if run.id == run_id), None)

    def find(self, keys: Sequence[tuple[int, bytes]]) -> list[tuple[int, Record]]:
        found = [self._store._latest[key] for key in keys if key in self._store._latest]
        return [(at + 1, self._store._log[at]) for at in found]

    def following(self, run: int, after: int, limit: int) -> list[tuple[int, Record]]:
        found: list[tuple[int, Record]] = []
        for at in range(after, len(self._store._log)):
            record = self._store._log[at]
            if record.run == run and self._store._latest[record.place, record.key] == at:
                found.append((at + 1, record))
            if len(found) == limit:
                break
        return found

    def spent(self, run: int) -> Spent:
        return total(record.usage for record in self._store._log if record.run == run)

    def places(self, run: int, limit: int) -> list[int]:
        return [place.id for place in self._store._places.values() if place.run == run][:limit]

    def named_places(self, run: int) -> list[PlaceRow]:
        return [place for place in self._store._places.values() if place.run == run]

    def counts(self, run: int) -> list[PlaceCount]:
        found = []
        for place in self._store._places.values():
            if place.run == run:
                kinds = [
                    self._store._log[at].kind for (id, _), at in self._store._latest.items() if id == place.id
                ]
                counted = (kinds.count(kind) for kind in (OK, FAILED, AGAIN))
                found.append(PlaceCount(place.path, place.visit, *counted))
        return found

    def answers(self, keys: Sequence[bytes]) -> list[Answer]:
        kept = self._store._answers
        return [found for key in keys if (found := kept.get(key)) is not None]

    def count_answers(self) -> tuple[int, int]:
        kept = list(self._store._answers.values())
        return len(kept), sum(len(answer.data) for answer in kept)

    def deaths(self, run: int) -> list[Death]:
        row = next((row for row in self._store._runs if row.number == run), None)
        sessions = {each.number for each in row.sessions} if row is not None else set()
        return [
            death
            for death in self._store._deaths
            if death.session in sessions and not self._is_settled(death)
        ]

    def close(self) -> None:
        pass

    def _is_settled(self, death: Death) -> bool:
        return any(
            (r.place, r.key) == (death.place, death.key)
            and (r.kind == OK or (r.kind == AGAIN and r.session > death.session))
            for r in self._store._log
        )
