"""Rows of CSV and TSV: the first line names the columns, all values are text."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from asyncflow.cli.map.rows import Row, RowsError, check_text, opened

#: Characters of one field: the module's own 131,072 are few for a document. The most that fits a C long.
_LONGEST = 2**31 - 1


class CSVRows:
    """The rows of a `.csv` or `.tsv` file. Blank lines are passed over; cells may hold line ends in quotes.

    Args:
        path: The file.
        encoding: Of its text; a byte order mark is no part of it.
        delimiter: Between two cells.
    """

    def __init__(self, path: Path, encoding: str = "utf-8", delimiter: str = ",") -> None:
        self.path = path
        self._encoding = encoding
        self._delimiter = delimiter
        self._columns: tuple[str, ...] | None = None

    def columns(self) -> tuple[str, ...]:
        if self._columns is None:
            _, header = next(self._records(), (1, []))
            if not header:
                raise RowsError(f"{self.path}:1: it is empty: the first line must name the columns")
            twice = sorted({name for name in header if header.count(name) > 1})
            if twice:
                raise RowsError(f"{self.path}:1: more than one column is called {twice[0]!r}")
            self._columns = tuple(header)
        return self._columns

    def arrow_schema(self) -> None:
        return None

    def __iter__(self) -> Iterator[Row]:
        columns = self.columns()
        records = self._records()
        next(records, None)
        for number, cells in records:
            if len(cells) != len(columns):
                if len(cells) == 1 and not cells[0].strip():
                    continue
                raise RowsError(
                    f"{self.path}:{number}: {len(cells)} {'cell' if len(cells) == 1 else 'cells'}, "
                    f"but there are {len(columns)} columns"
                )
            yield Row(f"{self.path}:{number}", dict(zip(columns, cells, strict=True)))

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """The line that each record begins in, and its cells."""
        before = csv.field_size_limit(_LONGEST)
        try:
            with opened(self.path, self._encoding, "") as file:
                reader = csv.reader(self._checked(file), delimiter=self._delimiter, strict=True)
                while True:
                    number = reader.line_num + 1
                    try:
                        cells = next(reader, None)
                    except csv.Error as exc:
                        raise RowsError(f"{self.path}:{number}: {_said(exc)}") from exc
                    except UnicodeDecodeError as exc:
                        raise RowsError(f"{self.path}:{number}: not {self._encoding}: {exc.reason}") from exc
                    if cells is None:
                        return
                    if cells:
                        yield number, cells
        finally:
            csv.field_size_limit(before)

    def _checked(self, lines: Iterator[str]) -> Iterator[str]:
        for number, line in enumerate(lines, 1):
            check_text(line, self.path, number, self._encoding)
            if "\0" in line:
                raise RowsError(f"{self.path}:{number}: a NUL character, which no text has")
            yield line


def _said(error: csv.Error) -> str:
    if "unexpected end of data" in str(error):
        return "a quote is opened in this row and never closed"
    return f"not CSV: {error} (a quote within a quoted cell is written twice)"
