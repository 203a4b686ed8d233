"""One node's items in one visit, as the journal keeps them: see `asyncflow.engine.journal.Place`."""

from __future__ import annotations

import time
from typing import Any

from asyncflow.durability import failures
from asyncflow.durability import usage as usages
from asyncflow.durability.codec import Codec, Unreadable, Unstorable
from asyncflow.durability.failures import short
from asyncflow.durability.keys import PlaceKeys
from asyncflow.durability.marks import NO_SLOT
from asyncflow.durability.recall import Asker, Recall
from asyncflow.durability.store import ACTION, AGAIN, FAILED, OK, PlaceRow, Record
from asyncflow.durability.writer import Writer
from asyncflow.engine.journal import Committed, RetryFailed, Verdict
from asyncflow.errors import NotStorableError, ResumeMismatchError
from asyncflow.outcome import Failed, Ok, Outcome, Skipped, Spent

_plain = Codec()

#: SQLite holds 1 GB in a value; as a part of a JSON text a result may take twice its size.
_LARGEST = 256 * 1024 * 1024


class Tally:
    """Items that were looked for in a resumed run, and those of them that were recorded."""

    __slots__ = ("items", "known")

    def __init__(self) -> None:
        self.items = self.known = 0


class RunPlace:
    """See the module. Used on one thread, that of its host.

    Attributes:
        has_records: Whether an earlier session may have recorded anything here.
    """

    __slots__ = (
        "_action",
        "_asked",
        "_codec",
        "_fresh",
        "_host",
        "_in_flight",
        "_keys",
        "_recall",
        "_retry_failed",
        "_row",
        "_run",
        "_session",
        "_since",
        "_suspects",
        "_tally",
        "_writer",
        "has_records",
    )

    def __init__(
        self,
        keys: PlaceKeys,
        row: PlaceRow,
        session: int,
        writer: Writer,
        recall: Recall | None,
        codec: Codec,
        host: Asker,
        *,
        since: int,
        retry_failed: RetryFailed,
        suspects: dict[bytes, Verdict],
        tally: Tally,
    ) -> None:
        self._keys = keys
        self._row: PlaceRow | None = row
        self._run = row.run
        self._session = session
        self._writer = writer
        self._recall = recall
        self._codec = codec
        self._host = host
        self._since = since
        self._retry_failed = retry_failed
        self._suspects = suspects
        self._tally = tally
        self._in_flight: dict[bytes, tuple[int, float]] = {}
        self._action: bytes | None = None
        self._asked = False
        self._fresh = False
        self.has_records = recall is not None or retry_failed == "only"

    def key_of(self, item: Any) -> bytes:
        return self._keys.item(item)

    def key_of_single(self, prep_res: Any) -> bytes:
        return self._keys.single(prep_res)

    def verdict(self, key: bytes) -> Verdict:
        """What earlier deaths of the process say about this item."""
        return self._suspects.get(key, "run")

    async def recall(self, key: bytes) -> Outcome[Any] | None:
        self._tally.items += 1
        if self._recall is None:
            return self._left
        record = self._recall.take(key)
        if record is None or not self._asked:
            record = await self._ask(self._recall, key, record)
        if record is None or record.session <= self._since:
            return self._left
        if record.kind == AGAIN:
            return None
        self._tally.known += 1
        if record.kind == FAILED:
            if self._retry_failed:
                return None
            self._suspects.pop(key, None)
            return failures.load(record.data, record.attempts)
        try:
            return Ok(self._codec.decode(record.data), attempts=record.attempts)
        except Unreadable as exc:
            raise ResumeMismatchError(
                f"{self._keys.label}: item {record.position} cannot be read back: {exc}. Declare the type "
                "again, or drop the node's results",
                differences=(str(exc),),
            ) from None

    @property
    def _left(self) -> Skipped | None:
        """What becomes of an item without a record."""
        return Skipped("not failed", attempts=0) if self._retry_failed == "only" else None

    async def _ask(self, recall: Recall, key: bytes, record: Record | None) -> Record | None:
        """The record from the store; the first time, with the action that the place ended with."""
        place, action_key = self._keys.place, self._keys.action()
        action = None if self._asked else recall.take(action_key)
        wanted = [] if record is not None else [(place, key)]
        if not self._asked and action is None:
            wanted.append((place, action_key))
        found = await recall.ask(wanted, self._host) if wanted else {}
        action = found.get(action_key, action)
        if action is not None and action.session > self._since:
            self._action = action.data
        self._asked = True
        return found.get(key, record)

    def begin(self, key: bytes) -> None:
        if key not in self._in_flight:
            if self._recall is None:
                self._tally.items += 1
            self._in_flight[key] = (self._mark(key), time.time())

    def _mark(self, key: bytes) -> int:
        slot = self._writer.marks.set(key, self._keys.place, self._session)
        if self._suspects.get(key) == "alone":
            self._writer.marks.flush()
        return slot

    def rests(self, key: bytes) -> None:
        slot, began = self._in_flight.get(key, (NO_SLOT, 0.0))
        if slot != NO_SLOT:
            self._writer.marks.clear(slot)
            self._in_flight[key] = (NO_SLOT, began)

    def goes_on(self, key: bytes) -> None:
        slot, began = self._in_flight.get(key, (0, 0.0))
        if slot == NO_SLOT:
            self._in_flight[key] = (self._mark(key), began)

    def withdraw(self, key: bytes) -> None:
        slot, _ = self._in_flight.pop(key, (NO_SLOT, 0.0))
        if slot != NO_SLOT:
            self._writer.marks.clear(slot)

    def commit(
        self,
        key: bytes,
        outcome: Ok[Any] | Failed,
        committed: Committed,
        spent: Spent | None = None,
    ) -> None:
        usage = None if spent is None else usages.to_text(spent)
        if isinstance(outcome, Ok):
            kind, data, source = OK, self._encoded(outcome), outcome.value
        else:
            kind, data, source = FAILED, failures.dump(outcome), outcome.error
        usage = usage or usages.told_by(source)
        now = time.time()
        slot, began = self._in_flight.pop(key, (NO_SLOT, now))
        now = max(now, began)  # somebody may have set the clock back
        if slot != NO_SLOT:
            self._writer.marks.clear(slot)
        self._fresh = True
        label = None if outcome.key is None else short(outcome.key, 200)
        record = Record(
            self._run,
            self._keys.place,
            key,
            self._session,
            kind,
            outcome.attempts,
            outcome.index,
            label,
            began,
            now,
            data,
            usage,
        )
        self._writer.submit(record, self._row, committed, self._host)
        self._row = None
        if self._suspects:
            self._suspects.pop(key, None)

    def _encoded(self, outcome: Ok[Any]) -> bytes:
        """A result as it is recorded. Raises NotStorableError where it cannot be."""
        try:
            data = self._codec.encode(outcome.value)
        except Unstorable as exc:
            raise NotStorableError(
                f"{self._keys.label}: the result of item {outcome.index} ({short(outcome.item)}) cannot "
                f"be recorded: {exc}"
            ) from None
        if len(data) > _LARGEST:
            raise NotStorableError(
                f"{self._keys.label}: the result of item {outcome.index} takes {len(data):,} bytes, more "
                f"than {_LARGEST:,}: write it to a file and return its path"
            )
        return data

    def acted(self, action: Any) -> None:
        data = _plain.encode(action if action is None or type(action) is str else repr(action))
        if data == self._action:
            return
        if self._action is not None and not self._fresh:
            then = _plain.decode(self._action)
            raise ResumeMismatchError(
                f"{self._keys.label}: post returned {action!r} for the same results from which it returned "
                f"{then!r} when they were recorded. post must depend on nothing that changes between runs",
                differences=(f"{self._keys.label}: action was {then!r}, is {action!r}",),
            )
        now = time.time()
        key, place = self._keys.action(), self._keys.place
        record = Record(self._run, place, key, self._session, ACTION, 1, -1, None, now, now, data, None)
        self._writer.submit(record, self._row, None, self._host)
        self._row = None

    def leave(self) -> None:
        """No attempt of this place runs any more: items that were cancelled were not in flight."""
        for slot, _ in self._in_flight.values():
            self._writer.marks.clear(slot)
        self._in_flight.clear()
