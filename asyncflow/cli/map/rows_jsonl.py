"""Rows of JSON lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asyncflow.cli.map.rows import Row, RowsError, check_text, opened


class JSONLRows:
    """The rows of a `.jsonl` file. Blank lines are passed over; lines may end in LF, CRLF or CR.

    Args:
        path: The file.
        encoding: Of its text; a byte order mark is no part of it.
    """

    def __init__(self, path: Path, encoding: str = "utf-8") -> None:
        self.path = path
        self._encoding = encoding

    def columns(self) -> None:
        return None

    def arrow_schema(self) -> None:
        return None

    def __iter__(self) -> Iterator[Row]:
        with opened(self.path, self._encoding, None) as file:
            number = 0
            try:
                for number, line in enumerate(file, 1):
                    if not line.isspace():
                        check_text(line, self.path, number, self._encoding)
                        where = f"{self.path}:{number}"
                        yield Row(where, _object(line, where))
            except UnicodeDecodeError as exc:
                raise RowsError(f"{self.path}:{number + 1}: not {self._encoding}: {exc.reason}") from exc


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line, parse_constant=_no_json)
    except json.JSONDecodeError as exc:
        near = line[max(0, exc.pos - 20) : exc.pos + 20].strip()
        cut = "" if line.endswith("\n") else "; it has no line end: was the file cut off?"
        raise RowsError(f"{where}: not JSON: {exc.msg} at character {exc.colno}, near {near!r}{cut}") from exc
    except (ValueError, RecursionError) as exc:  # a number of 5,000 digits, 100,000 brackets
        raise RowsError(f"{where}: {exc}") from exc
    if not isinstance(value, dict):
        kind = {list: "an array", str: "a text", type(None): "null"}.get(type(value), "a number or boolean")
        raise RowsError(f'{where}: {kind}, where an object such as {{"text": "…"}} is needed')
    return value


def _no_json(word: str) -> None:
    raise ValueError(f"{word} is not JSON; write null instead")
