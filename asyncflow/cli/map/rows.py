"""Rows of a file, whatever its format: the record, the error that says where, and the way in by suffix."""

from __future__ import annotations

import codecs
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from asyncflow.cli.tables.formats import delimiter_of, kind_of
from asyncflow.cli.usage import UsageError

#: What stands for a byte that was no text in the encoding (see `surrogateescape`).
_NO_TEXT = re.compile("[\udc80-\udcff]")


class RowsError(UsageError):
    """The input is not what its name says; the text begins with the file and the line."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the input.

    Attributes:
        where: The file and the line (in Parquet the row) that it begins in, for people.
        values: By column.
        key: By which a stored run knows it again; see `keys`.
        number: Its place in the input, from 0.
    """

    where: str
    values: dict[str, Any]
    key: str = ""
    number: int = -1


class Rows(Protocol):
    """A file of rows that can be read again and again."""

    @property
    def path(self) -> Path: ...

    def columns(self) -> tuple[str, ...] | None:
        """The columns that every row has, or None where each row has its own."""

    def arrow_schema(self) -> Any:
        """The schema, of a Parquet file; else None."""

    def __iter__(self) -> Iterator[Row]:
        """Read from the start, with flat memory. Raises `RowsError`."""


def rows_of(path: Path, *, encoding: str = "utf-8", delimiter: str | None = None) -> Rows:
    """The rows of a file.

    Raises:
        UsageError: If it is not a file that can be read twice, or its suffix is unknown.
    """
    from asyncflow.cli.map.rows_csv import CSVRows
    from asyncflow.cli.map.rows_jsonl import JSONLRows
    from asyncflow.cli.map.rows_parquet import ParquetRows

    kind = kind_of(path)
    try:
        mode = os.stat(path).st_mode
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror}") from exc
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path}: it is no plain file; it is read twice, so a pipe will not do")
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise UsageError(f"--encoding {encoding}: Python knows no such encoding") from None
    if kind == "jsonl":
        return JSONLRows(path, encoding)
    return CSVRows(path, encoding, delimiter_of(path, delimiter)) if kind == "csv" else ParquetRows(path)


def opened(path: Path, encoding: str, newline: str | None) -> TextIO:
    """The file as text without a byte order mark; bytes that are none become surrogates, see `check_text`."""
    if codecs.lookup(encoding).name == "utf-8":
        encoding = "utf-8-sig"
    return open(path, encoding=encoding, errors="surrogateescape", newline=newline)


def check_text(line: str, path: Path, number: int, encoding: str) -> None:
    """Refuse a line with bytes that are no text.

    Raises:
        RowsError: If there are some.
    """
    found = None if line.isascii() else _NO_TEXT.search(line)
    if found is not None:
        byte = ord(found[0]) - 0xDC00
        other = "utf-16" if number == 1 and found.start() == 0 and byte in (0xFF, 0xFE) else "latin-1"
        raise RowsError(
            f"{path}:{number}: not {encoding}: byte 0x{byte:02x} at character {found.start() + 1}; "
            f"if the file is written in another encoding, name it (--encoding {other})"
        )
