"""Where SQLite's and PostgreSQL's SQL differ: how many rows go in at once, and how many come out.

Both differences are there for speed. Python's SQLite gives the interpreter lock away around every statement
and every row, and beside a busy event loop gets it back only after 5 ms: `executemany` of 64 rows takes
300 ms (measured), one INSERT of 64 rows 15 ms; 500 rows read take seconds, and as one JSON text milliseconds.
psycopg waits once for a statement and all of its rows; there, one array for each column is the short way in,
and its text is the same for any number of rows, so that the server parses it once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from sqlalchemy import Connection, Engine, Select, Table, Text, cast, func, select
from sqlalchemy import types as sqltypes

Rows: TypeAlias = list[tuple[Any, ...]]
Unpack: TypeAlias = Callable[[Sequence[Any]], Sequence[Sequence[Any]]]


class Dialect(Protocol):
    """What a database's SQL has of its own.

    Attributes:
        begin: Opens a transaction that may write.
        snapshot: Opens one that reads what is there now, whatever is committed meanwhile.
        most_rows: Rows in one insertion.
    """

    begin: str
    snapshot: str
    most_rows: int

    def insertion(
        self, engine: Engine, table: Table, columns: tuple[str, ...]
    ) -> Callable[[Connection, Rows], Any]:
        """A function that adds rows, keeps what is there, and is one statement; it returns the cursor."""

    def form(self, question: Select[Any]) -> tuple[Select[Any], Unpack]:
        """The question in the form in which its rows travel best, and what makes rows of what it brings."""


class SQLite:
    """See `Dialect`."""

    begin = "BEGIN IMMEDIATE"
    snapshot = "BEGIN"
    #: SQLite takes 32,766 parameters in a statement; no group needs to be larger than this.
    most_rows = 992

    def insertion(
        self, engine: Engine, table: Table, columns: tuple[str, ...]
    ) -> Callable[[Connection, Rows], Any]:
        from sqlalchemy.dialects.sqlite import insert

        one = insert(table).on_conflict_do_nothing().values(dict.fromkeys(columns))
        compiled = one.compile(engine, column_keys=list(columns))
        order = compiled.positiontup or []
        row = "(" + ", ".join("?" * len(columns)) + ")"
        head, tail = str(compiled).split(row)
        # Rows come in the order of `columns`; the statement has the table's, which is the same.
        assert tuple(order) == columns, order
        texts: dict[int, str] = {}

        def add(connection: Connection, rows: Rows) -> Any:
            """Parsing a statement of hundreds of rows costs more than running it, so few lengths are in use:
            above 32 rows the last one is repeated up to a multiple of 32, and kept once as every row that is
            there."""
            if len(rows) > 32:
                rows = rows + rows[-1:] * (-len(rows) % 32)
            text = texts.get(len(rows))
            if text is None:
                text = texts[len(rows)] = head + ", ".join([row] * len(rows)) + tail
            return connection.exec_driver_sql(text, tuple([value for row in rows for value in row]))

        return add

    def form(self, question: Select[Any]) -> tuple[Select[Any], Unpack]:
        """All rows as one JSON array."""
        columns = question.subquery().c
        back = [
            (at, _FROM_JSON[column.name]) for at, column in enumerate(columns) if column.name in _FROM_JSON
        ]

        def unpack(rows: Sequence[Any]) -> Sequence[Sequence[Any]]:
            ((text,),) = rows
            found: list[list[Any]] = json.loads(text)
            for row in found:
                for at, convert in back:
                    row[at] = convert(row[at])
            return found

        packed = func.json_group_array(func.json_array(*(_as_json(column) for column in columns)))
        return select(packed), unpack


def _as_json(column: Any) -> Any:
    if column.name in ("began", "at"):
        return func.printf("%!.17g", column)
    if column.name == "key":
        return func.hex(column)
    return cast(column, Text) if column.name == "data" else column  # it is UTF-8 without NUL


#: What JSON cannot carry as it is, by the name of the column.
_FROM_JSON: dict[str, Callable[[str], Any]] = {
    "key": bytes.fromhex,
    "data": str.encode,
    "began": float,
    "at": float,
}


def _as_it_is(rows: Sequence[Any]) -> Sequence[Sequence[Any]]:
    return rows


class PostgreSQL:
    """See `Dialect`."""

    begin = "BEGIN"
    snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    most_rows = 10_000

    def insertion(
        self, engine: Engine, table: Table, columns: tuple[str, ...]
    ) -> Callable[[Connection, Rows], Any]:
        arrays = ", ".join(f"%b::{_array(table.c[name].type)}" for name in columns)
        names = ", ".join(f'"{name}"' for name in columns)
        text = f'INSERT INTO "{table.name}" ({names}) SELECT * FROM unnest({arrays}) ON CONFLICT DO NOTHING'

        def add(connection: Connection, rows: Rows) -> Any:
            values = tuple([list(column) for column in zip(*rows, strict=True)])
            return connection.exec_driver_sql(text, values)

        return add

    def form(self, question: Select[Any]) -> tuple[Select[Any], Unpack]:
        return question, _as_it_is


def _array(kind: Any) -> str:
    # The narrower types come first where one is a kind of the other.
    for types, name in (
        (sqltypes.SmallInteger, "int2"),
        (sqltypes.BigInteger, "int8"),
        (sqltypes.Integer, "int4"),
        (sqltypes.Text, "text"),
        (sqltypes.LargeBinary, "bytea"),
        (sqltypes.Double, "float8"),
    ):
        if isinstance(kind, types):
            return f"{name}[]"
    raise AssertionError(kind)
