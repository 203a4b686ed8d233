"""A look at the whole input before the first call is paid: every row is read, none is kept but a sample."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from asyncflow.cli.map.rows import Row, Rows, RowsError

#: Whole numbers up to this one are numbers of a float column, too, without a loss.
_EXACT = 2**53
#: The kind of a column with larger ones: "int" by itself, and "json" next to floats.
_LONG = "long"


@dataclass(frozen=True, slots=True)
class Scan:
    """What an input holds.

    Attributes:
        rows: How many.
        columns: All columns, in the order in which they first come.
        kinds: What values a column has: `"bool"`, `"int"`, `"float"`, `"text"`, or `"json"` for anything
            else and mixtures.
        sample: Rows drawn at random, each as likely as the others.
        stamp: Size and time of change, by which another file of the name is noticed.
    """

    rows: int
    columns: tuple[str, ...]
    kinds: dict[str, str]
    sample: tuple[Row, ...]
    stamp: tuple[int, int]


def scan(
    rows: Rows,
    needed: tuple[str, ...],
    *,
    key: tuple[str, ...] = (),
    limit: int | None = None,
    sample: int = 0,
    seed: int = 0,
) -> Scan:
    """Read the input once.

    Args:
        rows: The input.
        needed: Columns that every row must have, because the prompt names them.
        key: Columns that every row must have, because it is known by them.
        limit: Look at so many rows only, because no more are used.
        sample: How many rows to draw.
        seed: For the draw.

    Raises:
        RowsError: At the first row that is broken, or lacks a needed column.

    Source:
        The draw is Vitter's algorithm R (Random sampling with a reservoir, 1985).
    """
    stamp = stamp_of(rows.path)
    fixed = rows.columns()
    if fixed is not None:
        _check(needed, key, fixed, f"{rows.path}")
    uniform = random.Random(seed)
    kinds: dict[str, str] = dict.fromkeys(fixed or (), "")
    drawn: list[Row] = []
    count = 0
    for row in islice(iter(rows), limit):
        if fixed is None:
            _check(needed, key, row.values, row.where)
        for name, value in row.values.items():
            kind = _kind(value)
            if kinds.get(name) != kind:
                kinds[name] = _both(kinds.get(name, ""), kind)
        count += 1
        if len(drawn) < sample:
            drawn.append(row)
        elif sample and (place := uniform.randrange(count)) < sample:
            drawn[place] = row
    if stamp_of(rows.path) != stamp:
        raise RowsError(f"{rows.path}: it changed while it was read")
    found = {name: "int" if kind == _LONG else kind or "text" for name, kind in kinds.items()}
    return Scan(count, tuple(kinds), found, tuple(drawn), stamp)


def again(rows: Rows, before: Scan) -> Iterator[Row]:
    """The rows that were looked at, read a second time.

    Raises:
        RowsError: If the file is no longer the one that was looked at.
    """
    if stamp_of(rows.path) != before.stamp:
        raise RowsError(f"{rows.path}: it changed after it was checked")
    yield from islice(iter(rows), before.rows)
    if stamp_of(rows.path) != before.stamp:
        raise RowsError(f"{rows.path}: it changed while it was read")


def stamp_of(path: Path) -> tuple[int, int]:
    """By which a file that was changed or replaced is noticed."""
    now = os.stat(path)
    return now.st_size, now.st_mtime_ns


def _check(needed: tuple[str, ...], key: tuple[str, ...], columns: Any, where: str) -> None:
    for name in (*needed, *key):
        if name not in columns:
            listed = ", ".join(map(str, columns)) or "none"
            option = "--prompt" if name in needed else "--key"
            hint = "" if name.isidentifier() else "; a brace that is meant as a brace is written twice: {{ }}"
            raise RowsError(
                f"{where}: no column {name!r}, which {option} names; the columns are: {listed}"
                + (hint if option == "--prompt" else "")
            )


def _kind(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        if -_EXACT <= value <= _EXACT:
            return "int"
        return _LONG if -(2**63) <= value < 2**63 else "json"
    if isinstance(value, float):
        return "float"
    return "text" if isinstance(value, str) else "json"


def _both(one: str, other: str) -> str:
    """The kind of a column that has values of both.

    Example:
        >>> _both("", "int"), _both("int", "float"), _both("int", "text")
        ('int', 'float', 'json')
        >>> _both("int", "long"), _both("long", "float")
        ('long', 'json')
    """
    if not one or not other or one == other:
        return one or other
    return {frozenset(("int", "float")): "float", frozenset(("int", _LONG)): _LONG}.get(
        frozenset((one, other)), "json"
    )
