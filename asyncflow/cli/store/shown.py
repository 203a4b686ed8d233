"""Moments, amounts and tables as text. Tables are never cut or folded: ids in them are copied."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

_NUMBER = re.compile(r"[\d.,e+-]+|-")


def moment(seconds: float | None, *, exact: bool = False) -> str | None:
    """Seconds since 1970 as ISO 8601 in UTC, to the second or to the millisecond.

    Example:
        >>> moment(1763638706.25), moment(1763638706.25, exact=True), moment(None)
        ('2025-11-20T11:38:26Z', '2025-11-20T11:38:26.250Z', None)
    """
    if seconds is None:
        return None
    spec = "milliseconds" if exact else "seconds"
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=spec).replace("+00:00", "Z")


def for_people(iso: str | None) -> str:
    """A moment as people write it.

    Example:
        >>> for_people("2025-11-20T11:38:26.250Z"), for_people(None)
        ('2025-11-20 11:38:26', '-')
    """
    return "-" if iso is None else iso[:19].replace("T", " ")


def size(count: int) -> str:
    """An amount of bytes.

    Example:
        >>> size(999), size(12_300_000)
        ('999 bytes', '12.3 MB')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"


def money(cost: float | None) -> str:
    """A cost, or a dash where it is not known."""
    return "-" if cost is None else f"{cost:.6g}"


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with a heading, columns aligned; a column of numbers to the right.

    Example:
        >>> table(["ID", "DONE"], [["a", "1,200"], ["bcd", "7"]])
        ['ID    DONE', 'a    1,200', 'bcd      7']
    """
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    right = [bool(rows) and all(_NUMBER.fullmatch(row[n]) for row in rows) for n in range(len(names))]
    return [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in (names, *rows)
    ]


def one_line(text: str, width: int) -> str:
    """A text on one line, cut.

    Example:
        >>> one_line("two" + chr(10) + "lines and more", 12)
        'two lines a…'
    """
    text = " ".join(text.split())
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
