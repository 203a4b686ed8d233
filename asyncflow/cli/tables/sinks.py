"""Writing rows, one format each: a row is a dict, and few of them are held."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from asyncflow.cli.tables.formats import arrow, cell, delimiter_of, kind_of
from asyncflow.cli.tables.values import as_text, json_line, unicode

#: Rows of a group of Parquet: what is in memory until it is written.
_GROUP = 1000


class TooManyDigitsError(ValueError):
    """A whole number does not fit into its column.

    Attributes:
        column: Its name. With the kind `"json"` it holds any number, as text.
    """

    def __init__(self, column: str) -> None:
        super().__init__(f"a number in {column} has more digits than the column holds")
        self.column = column


class Sink(Protocol):
    """Where rows go."""

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row.

        Raises:
            TooManyDigitsError: If a column cannot hold its number.
        """

    def close(self) -> None:
        """Write what is left, and the file's end; the file itself stays open."""


def sink_for(
    file: BinaryIO,
    path: Path,
    columns: Mapping[str, str],
    *,
    delimiter: str | None = None,
    schema: Any = None,
) -> Sink:
    """The writer for a file of that name.

    Args:
        file: Open for bytes.
        path: Says the format by its suffix.
        columns: Of a table, with the kinds of their values: `"bool"`, `"int"`, `"float"`, `"text"`, `"json"`.
            JSON lines take rows as they are.
        delimiter: Between two cells of CSV.
        schema: Of Arrow, for columns whose types are known; the others get those of their kinds.
    """
    kind = kind_of(path)
    if kind == "jsonl":
        return JSONLSink(file)
    if kind == "csv":
        return CSVSink(file, tuple(columns), delimiter_of(path, delimiter))
    return ParquetSink(file, path, columns, schema)


class JSONLSink:
    """One object a line.

    Args:
        file: Open for bytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, row: Mapping[str, Any]) -> None:
        self._file.write(json_line(dict(row)))

    def close(self) -> None:
        self._file.flush()


class CSVSink:
    """A line for the names, then one for each row.

    Args:
        file: Open for bytes.
        columns: Names.
        delimiter: Between two cells.
    """

    def __init__(self, file: BinaryIO, columns: tuple[str, ...], delimiter: str) -> None:
        self._file = file
        self._columns = columns
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text, delimiter=delimiter, lineterminator="\n")
        self._line(columns)

    def write(self, row: Mapping[str, Any]) -> None:
        self._line([as_text(row.get(name)) for name in self._columns])

    def close(self) -> None:
        self._file.flush()

    def _line(self, cells: Any) -> None:
        self._writer.writerow(cells)
        self._file.write(unicode(self._text.getvalue()).encode())
        self._text.seek(0)
        self._text.truncate()


class ParquetSink:
    """Row groups of a thousand rows.

    Args:
        file: Open for bytes.
        path: For messages.
        columns: With their kinds.
        schema: Fields that keep their types, or None.
    """

    def __init__(self, file: BinaryIO, path: Path, columns: Mapping[str, str], schema: Any = None) -> None:
        self._arrow = pa = arrow(path)
        types = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64()}
        known = {} if schema is None else {field.name: field for field in schema}
        fields = [
            known.get(name, pa.field(name, types.get(kind, pa.string()))) for name, kind in columns.items()
        ]
        metadata = {} if schema is None else dict(schema.metadata or {})
        metadata.pop(b"pandas", None)  # it describes columns that are no longer all
        self._schema = pa.schema(fields, metadata=metadata or None)
        self._kinds = {name: None if name in known else kind for name, kind in columns.items()}
        self._rows: list[dict[str, Any]] = []
        self._writer = pa.parquet.ParquetWriter(file, self._schema)

    def write(self, row: Mapping[str, Any]) -> None:
        self._rows.append({name: _held(name, row.get(name), kind) for name, kind in self._kinds.items()})
        if len(self._rows) >= _GROUP:
            self._write_group()

    def close(self) -> None:
        self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            self._writer.write_table(self._arrow.Table.from_pylist(rows, schema=self._schema))


def _held(name: str, value: Any, kind: str | None) -> Any:
    if kind is None:
        return value
    try:
        value = cell(value, kind)
    except OverflowError as exc:
        raise TooManyDigitsError(name) from exc
    return unicode(value) if isinstance(value, str) else value
