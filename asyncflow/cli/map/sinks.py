"""Writing rows, one format each: they take the input's values and our result, and hold few of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from asyncflow.cli.map.result import NAMES, cell, flat
from asyncflow.cli.map.rows_parquet import arrow
from asyncflow.cli.map.template import as_text
from asyncflow.cli.map.values import json_line, unicode

#: Rows of a group of Parquet: what is in memory until it is written.
_GROUP = 1000


class Sink(Protocol):
    """Where rows go."""

    def write(self, values: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Add a row."""

    def close(self) -> None:
        """Write what is left, and the file's end; the file itself stays open."""


class JSONLSink:
    """One object a line.

    Args:
        file: Open for bytes.
        prefix: Put before our names.
    """

    def __init__(self, file: BinaryIO, prefix: str) -> None:
        self._file = file
        self._names = {name: prefix + name for name in NAMES}

    def write(self, values: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        row = {**values, **{name: result[ours] for ours, name in self._names.items()}}
        self._file.write(json_line(row))

    def close(self) -> None:
        self._file.flush()


class CSVSink:
    """A line for the names, then one for each row.

    Args:
        file: Open for bytes.
        columns: The input's.
        ours: Our columns with their kinds.
        prefix: Put before our names.
        delimiter: Between two cells.
    """

    def __init__(
        self, file: BinaryIO, columns: tuple[str, ...], ours: Mapping[str, str], prefix: str, delimiter: str
    ) -> None:
        self._file = file
        self._columns = columns
        self._ours = ours
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text, delimiter=delimiter, lineterminator="\n")
        self._line([*columns, *(prefix + name for name in ours)])

    def write(self, values: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        cells = flat(result, self._ours)
        self._line([*map(as_text, map(values.get, self._columns)), *map(as_text, cells.values())])

    def close(self) -> None:
        self._file.flush()

    def _line(self, cells: list[str]) -> None:
        self._writer.writerow(cells)
        self._file.write(unicode(self._text.getvalue()).encode())
        self._text.seek(0)
        self._text.truncate()


class ParquetSink:
    """Row groups of a thousand rows.

    Args:
        file: Open for bytes.
        path: For messages.
        columns: The input's, with their kinds.
        schema: The input's, where it is Parquet: those columns keep their types.
        ours: Our columns with their kinds.
        prefix: Put before our names.
    """

    def __init__(
        self,
        file: BinaryIO,
        path: Path,
        columns: Mapping[str, str],
        schema: Any,
        ours: Mapping[str, str],
        prefix: str,
    ) -> None:
        self._arrow = pa = arrow(path)
        types = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64()}
        made = [pa.field(name, types.get(kind, pa.string())) for name, kind in columns.items()]
        fields = list(schema) if schema is not None else made
        fields += [pa.field(prefix + name, types.get(kind, pa.string())) for name, kind in ours.items()]
        metadata = (
            None if schema is None else {k: v for k, v in (schema.metadata or {}).items() if k != b"pandas"}
        )
        self._schema = pa.schema(fields, metadata=metadata or None)
        self._columns = None if schema is not None else columns
        self._ours = ours
        self._prefix = prefix
        self._rows: list[dict[str, Any]] = []
        self._writer = pa.parquet.ParquetWriter(file, self._schema)

    def write(self, values: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        cells = flat(result, self._ours)
        ours = {self._prefix + name: _held(cells[name], kind) for name, kind in self._ours.items()}
        if self._columns is None:
            self._rows.append({**values, **ours})
        else:
            theirs = {name: _held(values.get(name), kind) for name, kind in self._columns.items()}
            self._rows.append({**theirs, **ours})
        if len(self._rows) >= _GROUP:
            self._write_group()

    def close(self) -> None:
        self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            self._writer.write_table(self._arrow.Table.from_pylist(rows, schema=self._schema))


def _held(value: Any, kind: str) -> Any:
    value = cell(value, kind)
    return unicode(value) if isinstance(value, str) else value
