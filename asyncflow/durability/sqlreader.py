"""The reading side of the SQL store."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Select,
    and_,
    distinct,
    exists,
    func,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.exc import DBAPIError

from asyncflow.durability.store import ACTION, FAILED, OK, Death, PlaceCount, Record, RunRow, Session
from asyncflow.durability.tables import deaths, places, records, runs, sessions
from asyncflow.errors import StoreError, StoreFormatError

_COLUMNS = (records.c.seq, *(records.c[name] for name in Record._fields), records.c.checksum)
_later = records.alias("later")
#: A record counts unless a later session has recorded the same key.
_COUNTS = ~exists().where(
    _later.c.place == records.c.place, _later.c.key == records.c.key, _later.c.session > records.c.session
)
#: Keys in one question; SQLite takes 32,766 parameters.
_KEYS = 500


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
        for start in range(0, len(keys), _KEYS):
            some = keys[start : start + _KEYS]
            question = select(*_COLUMNS).where(tuple_(records.c.place, records.c.key).in_(some), _COUNTS)
            found += self._records(question)
        return found

    def following(self, run: int, after: int, limit: int) -> list[tuple[int, Record]]:
        question = select(*_COLUMNS).where(records.c.seq > after, records.c.run == run, _COUNTS)
        return self._records(question.order_by(records.c.seq).limit(limit))

    def places(self, run: int, limit: int) -> list[int]:
        return list(self._rows(select(places.c.id).where(places.c.run == run).limit(limit), scalars=True))

    def counts(self, run: int) -> list[PlaceCount]:
        at_place = records.c.place == places.c.id
        # The literal is what the partial index was declared with; the planner asks for the same words.
        special = and_(at_place, literal_column("kind <> 0"))
        total = select(func.count(distinct(records.c.key))).where(at_place)
        actions = select(func.count(distinct(records.c.key))).where(special, records.c.kind == ACTION)
        failed = select(func.count()).where(special, records.c.kind == FAILED, _COUNTS)
        question = select(
            places.c.path,
            places.c.visit,
            total.scalar_subquery(),
            actions.scalar_subquery(),
            failed.scalar_subquery(),
        ).where(places.c.run == run)
        return [
            PlaceCount(tuple(json.loads(path)), visit, all_ - acted - bad, bad)
            for path, visit, all_, acted, bad in self._rows(question.order_by(places.c.number))
        ]

    def deaths(self, run: int) -> list[Death]:
        done = exists().where(
            records.c.place == deaths.c.place, records.c.key == deaths.c.key, records.c.kind == OK
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

    def _records(self, question: Select[Any]) -> list[tuple[int, Record]]:
        found = []
        for row in self._rows(question):
            record = Record._make(row[1:-1])
            if zlib.crc32(record.data, zlib.crc32(record.key)) != row[-1]:
                raise StoreFormatError(
                    f"record {row[0]} is damaged (item {record.position}, key {record.key.hex()}): its "
                    "checksum is wrong. Nothing was changed"
                )
            found.append((row[0], record))
        return found

    def _rows(self, question: Select[Any], *, scalars: bool = False) -> Any:
        try:
            result = self._connection.execute(question)
            return result.scalars().all() if scalars else result.all()
        except DBAPIError as exc:
            raise StoreError(f"the store cannot be read: {exc.orig}") from exc
