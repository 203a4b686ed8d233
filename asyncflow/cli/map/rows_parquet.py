"""Rows of Parquet, read a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asyncflow.cli.map.rows import Row, RowsError
from asyncflow.cli.tables.formats import arrow

#: Rows that are turned into Python objects at once.
_AT_ONCE = 256


class ParquetRows:
    """The rows of a `.parquet` file.

    Args:
        path: The file.

    Raises:
        UsageError: If pyarrow is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        arrow(path)

    def columns(self) -> tuple[str, ...]:
        names = tuple(self.arrow_schema().names)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise RowsError(f"{self.path}: more than one column is called {twice[0]!r}")
        return names

    def arrow_schema(self) -> Any:
        with self._opened() as file:
            return file.schema_arrow

    def __iter__(self) -> Iterator[Row]:
        number = 0
        with self._opened() as file:
            try:
                for batch in file.iter_batches(batch_size=_AT_ONCE):
                    for values in batch.to_pylist():
                        number += 1
                        yield Row(f"{self.path}: row {number}", values)
            except (arrow(self.path).ArrowException, OSError, ValueError) as exc:
                raise RowsError(f"{self.path}: row {number + 1}: cannot be read: {exc}") from exc

    def _opened(self) -> Any:
        pyarrow = arrow(self.path)
        try:
            return pyarrow.parquet.ParquetFile(self.path)
        except (pyarrow.ArrowException, OSError) as exc:
            raise RowsError(f"{self.path}: not a whole Parquet file: {exc}") from exc
