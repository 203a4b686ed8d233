"""Values of rows: what JSON knows, and what it is made from where a file holds more than that."""

from __future__ import annotations

import base64
import datetime
import json
import math
from typing import Any


def plain(value: Any) -> Any:
    """The value with everything in it that JSON does not know replaced.

    NaN and infinities become null, dates and times ISO 8601, durations seconds, bytes Base64, other things
    their `str`.

    Example:
        >>> plain({"a": [float("nan"), b"ab"], "day": datetime.date(2026, 11, 20)})
        {'a': [None, 'YWI='], 'day': '2026-11-20'}
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    return str(value)


def as_text(value: Any) -> str:
    """A value as it stands in a prompt or in a cell of CSV.

    Example:
        >>> as_text("a"), as_text(None), as_text(True), as_text(1.5), as_text(["a"])
        ('a', '', 'true', '1.5', '["a"]')
    """
    if isinstance(value, str):
        return value
    value = plain(value)
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def json_line(row: dict[str, Any]) -> bytes:
    """The row as one line of JSON in UTF-8, its end included.

    Example:
        >>> json_line({"a": "é", "b": float("inf")}).decode()
        '{"a": "é", "b": null}\\n'
    """
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError):
        row = plain(row)
        text = json.dumps(row, ensure_ascii=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair: legal in a JSON escape, not in UTF-8
        return json.dumps(row).encode() + b"\n"


def unicode(text: str) -> str:
    """The text without halves of surrogate pairs, which neither UTF-8 nor Arrow can hold.

    Example:
        >>> unicode("a\\ud800b")
        'a?b'
    """
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
