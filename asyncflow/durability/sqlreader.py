"""The reading side of the SQL store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any
from zlib import crc32

from sqlalchemy import (
    Connection,
    Engine,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    cast,
    distinct,
    exists,
    func,
    literal_column,
    or_,
    select,
)
from sqlalchemy.exc import DBAPIError

from asyncflow.durability.store import (
    ACTION,
    AGAIN,
    FAILED,
    OK,
    Death,
    PlaceCount,
    PlaceRow,
    Record,
    RunRow,
    Session,
)
from asyncflow.durability.tables import deaths, places, records, runs, sessions
from asyncflow.errors import StoreError, StoreFormatError

_COLUMNS = (records.c.seq, *(records.c[name] for name in Record._fields), records.c.checksum)
_later = records.alias("later")
#: A record counts unless a later session has recorded the same key.
_COUNTS = ~exists().where(
    _later.c.place == records.c.place, _later.c.key == records.c.key, _later.c.session > records.c.session
)
_KEY, _DATA = (_COLUMNS.index(records.c[name]) for name in ("key", "data"))
#: Keys in one question; SQLite takes 32,766 parameters.
_KEYS = 500
#: What one reading-on brings, but for its last record.
_BYTES = 4 * 1024 * 1024
#: Pairs of place and key that one question looks up in the index.
_SEEKS = 1000


class SQLReader:
    """See `StoreReader`."""

    def __init__(self, engine: Engine, connection: Connection) -> None:
        self._engine = engine
        self._connection = connection

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
            (text,) = self._rows(_SIZES, {"run": run, "after": after, "limit": limit}, scalars=True)
            last, size = 0, 0
            for seq, length in json.loads(text):
                last, size = seq, size + length
                if size > _BYTES:
                    break
            found = self._records(_FOLLOWING, {"run": run, "after": after, "last": last}) if last else []
            if found or not last:
                return found
            after = last  # all of these were replaced later

    def places(self, run: int, limit: int) -> list[int]:
        return list(self._rows(select(places.c.id).where(places.c.run == run).limit(limit), scalars=True))

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
            PlaceCount(tuple(json.loads(path)), visit, all_ - acted - bad - owed, bad)
            for path, visit, all_, acted, bad, owed in self._rows(question.order_by(places.c.number))
        ]

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
        self._connection.close()
        self._engine.dispose()

    def _runs(self, question: Select[Any]) -> list[RunRow]:
        found = []
        for row in self._rows(question):
            of_run = select(sessions.c.number, sessions.c.started, sessions.c.ended, sessions.c.how).where(
                sessions.c.run == row.number
            )
            openings = tuple(Session(*opening) for opening in self._rows(of_run.order_by(sessions.c.number)))
            found.append(RunRow(row.number, row.id, row.name, row.created, row.fingerprint, openings))
        return found

    def _find(self, places_: list[int], keys_: list[bytes]) -> list[tuple[int, Record]]:
        try:
            return self._records(_FIND, {"places": places_, "keys": keys_})
        except _TooLargeError:
            if len(keys_) == 1:
                raise
            half = len(keys_) // 2
            return self._find(places_, keys_[:half]) + self._find(places_, keys_[half:])

    def _records(self, question: Select[Any], parameters: dict[str, Any]) -> list[tuple[int, Record]]:
        (text,) = self._rows(question, parameters, scalars=True)
        return [_record(row) for row in json.loads(text)]

    def _rows(
        self, question: Select[Any], parameters: dict[str, Any] | None = None, *, scalars: bool = False
    ) -> Any:
        try:
            result = self._connection.execute(question, parameters)
            return result.scalars().all() if scalars else result.all()
        except DBAPIError as exc:
            too_large = getattr(exc.orig, "sqlite_errorname", "") == "SQLITE_TOOBIG"
            raise (_TooLargeError if too_large else StoreError)(
                f"the store cannot be read: {exc.orig}"
            ) from exc


class _TooLargeError(StoreError):
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


def _in_one_row(question: Select[Any]) -> Select[Any]:
    """All rows of a question as one JSON array.

    Python's SQLite gives the interpreter lock away around every row, and beside a busy event loop gets it
    back only after 5 ms: 500 rows took seconds, and in one row they take milliseconds.
    """
    rows = question.subquery()
    packed: list[Any] = [
        func.printf("%!.17g", column) if column.name in ("began", "at") else column for column in rows.c
    ]
    packed[_KEY] = func.hex(rows.c.key)
    packed[_DATA] = cast(rows.c.data, Text)  # it is UTF-8 without NUL
    return select(func.json_group_array(func.json_array(*packed)))


_FIND = _in_one_row(
    select(*_COLUMNS).where(
        records.c.place.in_(bindparam("places", expanding=True)),
        records.c.key.in_(bindparam("keys", expanding=True)),
        _COUNTS,
    )
)
_FOLLOWING = _in_one_row(
    select(*_COLUMNS)
    .where(
        records.c.seq > bindparam("after"),
        records.c.seq <= bindparam("last"),
        records.c.run == bindparam("run"),
        _COUNTS,
    )
    .order_by(records.c.seq)
)
_sizes = (
    select(records.c.seq, func.length(records.c.data).label("size"))
    .where(records.c.seq > bindparam("after"), records.c.run == bindparam("run"))
    .order_by(records.c.seq)
    .limit(bindparam("limit", type_=Integer))
    .subquery()
)
_SIZES = select(func.json_group_array(func.json_array(_sizes.c.seq, _sizes.c.size)))


def _record(row: list[Any]) -> tuple[int, Record]:
    seq, run, place, key, session, kind, attempts, position, label, began, at, data, usage, checksum = row
    key, data = bytes.fromhex(key), data.encode()
    if crc32(data, crc32(key)) != checksum:
        raise StoreFormatError(
            f"record {seq} is damaged (item {position}, key {key.hex()}): its checksum is wrong. "
            "Nothing was changed"
        )
    return seq, Record(
        run, place, key, session, kind, attempts, position, label, float(began), float(at), data, usage
    )
