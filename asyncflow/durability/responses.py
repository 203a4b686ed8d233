"""`ResponseCache`: a model's answers kept in a store, beside runs or in a file of their own."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from asyncflow import clock
from asyncflow.durability import writer as writers
from asyncflow.durability.lookup import Lookup
from asyncflow.durability.loops import on_thread
from asyncflow.durability.opening import as_store
from asyncflow.durability.outbox import Outbox
from asyncflow.durability.store import Answer, Store, StoreReader
from asyncflow.errors import StoreError, StoreFormatError, StoreLockedError

_log = logging.getLogger("asyncflow")


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """What one `ResponseCache` has done since it was made.

    Attributes:
        hits, misses: How often something was found, and not.
        kept: Answers written.
        waiting: Answers handed in and not yet written; they are found all the same.
        lost: Answers that could not be written.
        reads_only: Whether another process writes to the store, so that nothing is kept.
    """

    hits: int
    misses: int
    kept: int
    waiting: int
    lost: int
    reads_only: bool


class ResponseCache:
    """Keeps answers in a store, for `LLMClient(cache=…)`. Meets its `Cache` protocol.

    An async context manager, which any number of clients may enter at the same time; the client does.

    Args:
        store: A path to a SQLite file, a URL, or a store. The file may be that of a run's `store=` in the
            same process. Where another process writes to it, what is there is read and nothing is kept,
            which a warning says.
        time_to_live: Seconds for which an answer counts, by the calendar; None: for ever. A shorter one than
            that with which an answer was kept counts for it, too. Expired answers are deleted.
        most: How many answers are left at most; the oldest are deleted. None: all.

    Guarantees: `put` never waits for the disk: answers are committed together, by a thread, and found
    before they are. What a killed process handed in during its last moments may be lost; leaving the block
    commits what waits. A damaged answer is not given out. Nothing of a question is stored, only its digest.

    Example:
        >>> import asyncio
        >>> from asyncflow.durability import MemoryStore
        >>> async def main():
        ...     async with ResponseCache(MemoryStore(), time_to_live=86_400) as cache:
        ...         await cache.put("question", {"text": "answer"})
        ...         return await cache.get("question"), cache.statistics().hits
        >>> asyncio.run(main())
        ({'text': 'answer'}, 1)
    """

    def __init__(
        self,
        store: Store | str | os.PathLike[str],
        *,
        time_to_live: float | None = None,
        most: int | None = None,
    ) -> None:
        if time_to_live is not None and not time_to_live > 0:
            raise ValueError(f"time_to_live={time_to_live!r}: seconds above 0, or None for ever")
        if most is not None and most < 1:
            raise ValueError(f"most={most!r}: at least one answer, or None for all")
        self._store = as_store(store)
        self._time_to_live = time_to_live
        self._most = most
        self._users = 0
        self._opening = threading.Lock()
        self._process = 0
        self._reader: StoreReader | None = None
        self._lookup: Lookup[Answer] | None = None
        self._outbox: Outbox | None = None
        self._reads_only = False
        self._hits = self._misses = self._kept = self._lost = 0

    async def __aenter__(self) -> ResponseCache:
        """Open the store, on a thread.

        Raises:
            StoreFormatError, StoreError: If it cannot be opened.
        """
        now, entered = clock.wall(), threading.Event()

        def enter() -> None:
            self._enter(now)
            entered.set()

        try:
            await on_thread(enter)
        except BaseException:
            if entered.is_set():  # and cancelled meanwhile
                await on_thread(self._leave)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await on_thread(self._leave)

    async def get(self, key: str) -> Any | None:
        """What was put under the key, if it still counts. A cancel point.

        Raises:
            StoreError: If the store cannot be read.
        """
        digest, lookup = _digest(key), self._opened()
        answer = None if self._outbox is None else self._outbox.find(digest)
        if answer is None and self._process == os.getpid():  # a forked child has no use of its parent's file
            answer = await lookup.ask(digest)
        value = None
        if answer is not None and self._counts(answer, clock.wall()):
            with suppress(ValueError):
                value = json.loads(answer.data)
        self._hits += value is not None
        self._misses += value is None
        return value

    async def put(self, key: str, value: Any) -> None:
        """Keep a value that is JSON; the last one put under a key counts. Does not wait.

        Raises:
            TypeError, ValueError: If the value is not JSON.
        """
        self._opened()
        if self._outbox is None or self._process != os.getpid():
            return
        now = clock.wall()
        expires = None if self._time_to_live is None else now + self._time_to_live
        data = json.dumps(value, separators=(",", ":")).encode("ascii")
        self._outbox.put(Answer(_digest(key), now, expires, data))

    async def clear(self) -> None:
        """Delete every answer in the store.

        Raises:
            StoreLockedError: If another process writes to it.
        """
        await self._delete(None)

    async def sweep(self) -> None:
        """Delete the answers that have expired. Done by itself at opening and now and then.

        Raises:
            StoreLockedError: If another process writes to the store.
        """
        await self._delete(clock.wall())

    async def size(self) -> tuple[int, int]:
        """How many answers the store has, and their bytes, expired ones included until they are deleted."""
        async with self:
            return await on_thread(self._count)

    def statistics(self) -> CacheStatistics:
        """What it has done so far."""
        box = self._outbox
        kept, waiting, lost = (0, 0, 0) if box is None else (box.kept, len(box), box.lost)
        return CacheStatistics(
            self._hits, self._misses, self._kept + kept, waiting, self._lost + lost, self._reads_only
        )

    def __repr__(self) -> str:
        now = self.statistics()
        state = "reads only" if now.reads_only else f"waiting={now.waiting}"
        return f"<ResponseCache {self._store!r} hits={now.hits} misses={now.misses} {state}>"

    def _opened(self) -> Lookup[Answer]:
        if self._lookup is None:
            raise RuntimeError(f"{self!r} is not open: use it in `async with`, or give it to a client")
        return self._lookup

    def _counts(self, answer: Answer, now: float) -> bool:
        if answer.expires is not None and answer.expires <= now:
            return False
        return self._time_to_live is None or answer.at + self._time_to_live > now

    async def _delete(self, expired_by: float | None) -> None:
        async with self:
            box = self._outbox
            if box is None:
                raise StoreLockedError(f"another process writes to {self._store!r}: nothing was deleted")
            await on_thread(lambda: box.delete(expired_by))

    # On threads ----------------------------------------------------------------------------------------

    def _enter(self, now: float) -> None:
        with self._opening:
            if not self._users:
                self._open(now)
            self._users += 1

    def _leave(self) -> None:
        with self._opening:
            self._users -= 1
            if not self._users:
                self._close()

    def _open(self, now: float) -> None:
        self._reads_only = False
        try:
            writer = writers.share(self._store)
        except StoreLockedError as exc:
            self._reads_only = True
            _log.warning("asyncflow: answers are read and none is kept: %s", exc)
        else:
            self._outbox = Outbox(writer, self._most)
        try:
            if self._outbox is not None:
                writer.call(lambda backend: backend.prepare_answers())
                self._outbox.delete(now)
            self._reader = self._store.open_reader()
            self._lookup = Lookup(self._find if self._has_answers(self._reader) else _nothing)
        except BaseException:
            self._give_back()
            raise
        self._process = os.getpid()

    def _has_answers(self, reader: StoreReader) -> bool:
        """Whether anybody has kept any here."""
        if self._reads_only:
            try:
                reader.answers([b""])
            except StoreError:
                return False
        return True

    def _close(self) -> None:
        if self._process == os.getpid():
            if self._outbox is not None:
                self._outbox.flush()
            if self._lookup is not None:
                self._lookup.close()
        self._give_back()

    def _give_back(self) -> None:
        box, reader = self._outbox, self._reader
        self._lookup = self._reader = self._outbox = None
        if reader is not None and self._process == os.getpid():
            reader.close()
        if box is not None:
            self._kept += box.kept
            self._lost += box.lost
            writers.unshare(self._store, box.writer)

    def _find(self, keys: list[bytes]) -> dict[bytes, Answer]:
        assert self._reader is not None
        try:
            return {answer.key: answer for answer in self._reader.answers(keys)}
        except StoreFormatError:
            if len(keys) == 1:
                return {}
        found: dict[bytes, Answer] = {}  # one of them may be the reason; the others are given
        for key in keys:
            found |= self._find([key])
        return found

    def _count(self) -> tuple[int, int]:
        if self._outbox is not None:
            self._outbox.flush()
        reader = self._store.open_reader()
        try:
            return reader.count_answers()
        finally:
            reader.close()


def _nothing(keys: list[bytes]) -> dict[bytes, Answer]:
    return {}


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()
