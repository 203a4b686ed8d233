"""Answers of a cache in the SQL store: the statements, in words that both databases understand."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, delete, func, select

from asyncflow.durability.dialects import Dialect, Rows
from asyncflow.durability.store import Answer
from asyncflow.durability.tables import answers, answers_metadata

Add = Callable[[Connection, Rows], Any]

FIND = select(*(answers.c[name] for name in Answer._fields), answers.c.checksum).where(
    answers.c.key.in_(bindparam("keys", expanding=True))
)
COUNT = select(func.count(), func.coalesce(func.sum(func.length(answers.c.data)), 0)).select_from(answers)
_REPLACED = delete(answers).where(answers.c.key.in_(bindparam("keys", expanding=True)))
_NEWEST = select(func.max(answers.alias("newest").c.seq)).scalar_subquery()


def prepare(connection: Connection) -> None:
    """Make the table where there is none."""
    answers_metadata.create_all(connection, checkfirst=True)


def insertion(engine: Engine, dialect: Dialect) -> Add:
    """What adds rows."""
    return dialect.insertion(engine, answers, (*Answer._fields, "checksum"))


def rows_of(kept: Sequence[Answer]) -> Rows:
    """As `insertion` takes them, by key: two processes that keep the same ones do not lock each other out."""
    return [(*answer, zlib.crc32(answer.data, zlib.crc32(answer.key))) for answer in sorted(kept)]


def make_room(connection: Connection, kept: Sequence[Answer]) -> None:
    """Delete what their keys had, so that these become the newest."""
    connection.execute(_REPLACED, {"keys": [answer.key for answer in kept]})


def bound(connection: Connection, most: int) -> None:
    """Delete the oldest, so that at most so many are left: no two have one number, newer ones higher ones."""
    connection.execute(delete(answers).where(answers.c.seq <= _NEWEST - most))


def drop(connection: Connection, now: float | None) -> None:
    """Delete what has expired, or everything."""
    some = delete(answers)
    connection.execute(some if now is None else some.where(answers.c.expires <= now))


def undamaged(rows: Sequence[Sequence[Any]]) -> list[Answer]:
    """The answers in these rows whose checksum is right."""
    return [
        Answer(key, at, expires, data)
        for key, at, expires, data, checksum in rows
        if zlib.crc32(data, zlib.crc32(key)) == checksum
    ]
