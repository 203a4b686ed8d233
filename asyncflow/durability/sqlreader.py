"""The reading side of the SQL store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, Protocol
from zlib import crc32

from sqlalchemy import (
    CursorResult,
    Executable,
    Integer,
    Select,
    and_,
    bindparam,
    distinct,
    exists,
    func,
    literal_column,
    or_,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError

from asyncflow.durability import sqlanswers
from asyncflow.durability.dialects import Dialect, Unpack
from asyncflow.durability.store import (
    ACTION,
    AGAIN,
    FAILED,
    OK,
    Answer,
    Death,
    PlaceCount,
    PlaceRow,
    Record,
    RunRow,
    Session,
)
from asyncflow.durability.tables import deaths, places, records, runs, sessions
from asyncflow.durability.usage import total
from asyncflow.errors import StoreError, StoreFormatError
from asyncflow.outcome import Spent

_COLUMNS = (records.c.seq, *(records.c[name] for name in Record._fields), records.c.checksum)
_later = records.alias("later")
#: A record counts unless a later session has recorded the same key.
_COUNTS = ~exists().where(
    _later.c.place == records.c.place, _later.c.key == records.c.key, _later.c.session > records.c.session
)
#: Rows of what was spent in one question.
_AT_ONCE = 5000
#: Keys in one question; SQLite takes 32,766 parameters.
_KEYS = 500
#: What one reading-on brings, but for its last record.
_BYTES = 4 * 1024 * 1024
#: Pairs of place and key that one question looks up in the index.
_SEEKS = 1000


class Link(Protocol):
    """A connection that only reads."""

    @property
    def dialect(self) -> Dialect: ...
    def execute(self, question: Executable, parameters: dict[str, Any] | None) -> CursorResult[Any]:
        """Raises StoreError where the database cannot be reached or read."""

    def close(self) -> None: ...


class SQLReader:
    """See `StoreReader`."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._questions = _questions(link.dialect)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self._link.execute(text(self._link.dialect.snapshot), None)
        try:
            yield
        finally:
            self._link.execute(text("ROLLBACK"), None)

    def runs(self) -> list[RunRow]:
        return self._runs(select(runs).order_by(runs.c.number))

    def run(self, run_id: str) -> RunRow | None:
        found = self._runs(select(runs).where(runs.c.id == run_id))
        return found[0] if found else None

    def find(self, keys: Sequence[tuple[int, bytes]]) -> list[tuple[int, Record]]:
        found: list[tuple[int, Record]] = []
        for places_, keys_ in _batches(sorted(keys)):
            # Not `(place, key) IN (VALUES ...)`: SQLite would read the whole table.
            found += self._find(places_, keys_)
        return found

    def following(self, run: int, after: int, limit: int) -> list[tuple[int, Record]]:
        while True:
            sizes = self._ask("sizes", {"run": run, "after": after, "limit": limit})
            last, size = 0, 0
            for seq, length in sizes:
                last, size = seq, size + length
                if size > _BYTES:
                    break
            asked = {"run": run, "after": after, "last": last}
            found = [_record(row) for row in self._ask("following", asked)] if last else []
            if found or not last:
                return found
            after = last  # all of these were replaced later

    def spent(self, run: int) -> Spent:
        found, after = Spent(), 0
        told = select(records.c.seq, records.c.usage).where(
            records.c.run == run, records.c.usage.is_not(None)
        )
        while rows := self._rows(told.where(records.c.seq > after).order_by(records.c.seq).limit(_AT_ONCE)):
            found += total(usage for _, usage in rows)
            after = rows[-1][0]
        return found

    def places(self, run: int, limit: int) -> list[int]:
        return [id for (id,) in self._rows(select(places.c.id).where(places.c.run == run).limit(limit))]

    def named_places(self, run: int) -> list[PlaceRow]:
        question = select(places.c.id, places.c.run, places.c.path, places.c.visit).where(places.c.run == run)
        found = self._rows(question.order_by(places.c.number))
        return [PlaceRow(id_, run, tuple(json.loads(path)), visit) for id_, run, path, visit in found]

    def counts(self, run: int) -> list[PlaceCount]:
        at_place = records.c.place == places.c.id
        # The literal is what the partial index was declared with; the planner asks for the same words.
        special = and_(at_place, literal_column("kind <> 0"))
        total = select(func.count(distinct(records.c.key))).where(at_place)
        actions = select(func.count(distinct(records.c.key))).where(special, records.c.kind == ACTION)
        failed = select(func.count()).where(special, records.c.kind == FAILED, _COUNTS)
        again = select(func.count()).where(special, records.c.kind == AGAIN, _COUNTS)
        question = select(
            places.c.path,
            places.c.visit,
            total.scalar_subquery(),
            actions.scalar_subquery(),
            failed.scalar_subquery(),
            again.scalar_subquery(),
        ).where(places.c.run == run)
        return [
            PlaceCount(tuple(json.loads(path)), visit, all_ - acted - bad - owed, bad, owed)
            for path, visit, all_, acted, bad, owed in self._rows(question.order_by(places.c.number))
        ]

    def answers(self, keys: Sequence[bytes]) -> list[Answer]:
        return sqlanswers.undamaged(self._ask("answers", {"keys": list(keys)}))

    def count_answers(self) -> tuple[int, int]:
        ((count, size_bytes),) = self._rows(sqlanswers.COUNT)
        return count, size_bytes

    def deaths(self, run: int) -> list[Death]:
        done = exists().where(
            records.c.place == deaths.c.place,
            records.c.key == deaths.c.key,
            or_(
                records.c.kind == OK,
                and_(records.c.kind == AGAIN, records.c.session > deaths.c.session),
            ),
        )
        question = (
            select(deaths.c.place, deaths.c.key, deaths.c.session, deaths.c.alone)
            .join(sessions, sessions.c.number == deaths.c.session)
            .where(sessions.c.run == run, ~done)
            .order_by(deaths.c.number)
        )
        return [Death(*row) for row in self._rows(question)]

    def close(self) -> None:
        self._link.close()

    def _runs(self, question: Select[Any]) -> list[RunRow]:
        found = []
        for row in self._rows(question):
            of_run = select(*(sessions.c[field.name] for field in fields(Session))).where(
                sessions.c.run == row.number
            )
            openings = tuple(Session(*opening) for opening in self._rows(of_run.order_by(sessions.c.number)))
            found.append(RunRow(row.number, row.id, row.name, row.created, row.fingerprint, openings))
        return found

    def _find(self, places_: list[int], keys_: list[bytes]) -> list[tuple[int, Record]]:
        try:
            return [_record(row) for row in self._ask("find", {"places": places_, "keys": keys_})]
        except TooLargeError:
            if len(keys_) == 1:
                raise
            half = len(keys_) // 2
            return self._find(places_, keys_[:half]) + self._find(places_, keys_[half:])

    def _ask(self, name: str, parameters: dict[str, Any]) -> Sequence[Sequence[Any]]:
        question, unpack = self._questions[name]
        result = self._link.execute(question, parameters)
        try:
            return unpack(result.all())
        except DBAPIError as exc:
            raise StoreFormatError("the store cannot be read: a row of it is damaged") from exc

    def _rows(self, question: Select[Any]) -> Sequence[Any]:
        return self._link.execute(question, None).all()


class TooLargeError(StoreError):
    """More than SQLite puts into one row: 1 GB, as JSON."""


def _batches(keys: Sequence[tuple[int, bytes]]) -> Iterator[tuple[list[int], list[bytes]]]:
    """Sorted (place, key) in parts; a part asks for all its keys in all its places, so few of either."""
    places_: dict[int, None] = {}
    keys_: list[bytes] = []
    for place, key in keys:
        if len(keys_) >= _KEYS or (len(places_) * len(keys_) > _SEEKS and place not in places_):
            yield list(places_), keys_
            places_, keys_ = {}, []
        places_[place] = None
        keys_.append(key)
    if keys_:
        yield list(places_), keys_


_FIND = select(*_COLUMNS).where(
    records.c.place.in_(bindparam("places", expanding=True)),
    records.c.key.in_(bindparam("keys", expanding=True)),
    _COUNTS,
)
_FOLLOWING = (
    select(*_COLUMNS)
    .where(
        records.c.seq > bindparam("after"),
        records.c.seq <= bindparam("last"),
        records.c.run == bindparam("run"),
        _COUNTS,
    )
    .order_by(records.c.seq)
)
_SIZES = (
    select(records.c.seq, func.length(records.c.data).label("size"))
    .where(records.c.seq > bindparam("after"), records.c.run == bindparam("run"))
    .order_by(records.c.seq)
    .limit(bindparam("limit", type_=Integer))
)


def _questions(dialect: Dialect) -> dict[str, tuple[Select[Any], Unpack]]:
    return {
        "find": dialect.form(_FIND),
        "following": dialect.form(_FOLLOWING),
        "sizes": dialect.form(_SIZES),
        "answers": dialect.form(sqlanswers.FIND),
    }


def _record(row: Sequence[Any]) -> tuple[int, Record]:
    seq, run, place, key, session, kind, attempts, position, label, began, at, data, usage, checksum = row
    if crc32(data, crc32(key)) != checksum:
        raise StoreFormatError(
            f"record {seq} is damaged (item {position}, key {key.hex()}): its checksum is wrong. "
            "Nothing was changed"
        )
    return seq, Record(run, place, key, session, kind, attempts, position, label, began, at, data, usage)
