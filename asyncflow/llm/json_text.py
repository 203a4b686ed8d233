"""The JSON values in a text that a model wrote: alone, in code fences, or within sentences."""

from __future__ import annotations

import json
import math
import re
from typing import Any

_FENCED = re.compile(r"```(?:json|JSON)?[ \t]*\n(.*?)\n?[ \t]*```", re.S)
_OPENING = re.compile(r"[{\[]")
#: What decides where an opened bracket ends: brackets, and texts, in which brackets are none.
_BRACKET = re.compile(r'[{\[]|[}\]]|"(?:[^"\\]|\\.)*"?', re.S)


class NotFiniteError(ValueError):
    """A text is JSON but for a number that is none."""


def values_in(text: str, *, cut: bool = False) -> list[Any]:
    """The values that a text holds, in their order; empty if there are none.

    Where the text is JSON as a whole it is one value; else the code fences that are JSON count, and where
    there are none of these, what stands between other words. A part of something that was opened and is not
    JSON (an answer that was cut, or has a mistake) is never taken for a value.

    Args:
        text: What the model wrote.
        cut: Whether more would have come; then nothing between other words counts.

    Raises:
        NotFiniteError: If there are no values but some with `NaN`, `Infinity`, or a number too large.

    Example:
        >>> values_in('Of [1] and [2]: {"n": 3}'), values_in('{"n": {"m": 1}, "o')
        ([[1], [2], {'n': 3}], [])
    """
    wrong: list[NotFiniteError] = []
    found: list[Any] = []
    for group in ([text], [one[1] for one in _FENCED.finditer(text)]):
        for part in group:
            try:
                found.append(_DECODER.decode(part))
            except NotFiniteError as exc:
                wrong.append(exc)
            except (ValueError, RecursionError):
                continue
        if found:
            return found
        if wrong:
            break
    if not cut and not wrong:
        found = _within(text, wrong)
    if wrong and not found:
        raise wrong[0]
    return found


def _within(text: str, wrong: list[NotFiniteError]) -> list[Any]:
    found: list[Any] = []
    at = _OPENING.search(text)
    while at is not None:
        try:
            value, end = _DECODER.raw_decode(text, at.start())
        except (ValueError, RecursionError) as exc:
            if isinstance(exc, NotFiniteError):
                wrong.append(exc)
            end = _end_of(text, at.start())
        else:
            found.append(value)
        at = _OPENING.search(text, end)
    return found


def _end_of(text: str, start: int) -> int:
    """Behind the bracket that closes the one at `start`; the end of the text where none does."""
    depth = 0
    for mark in _BRACKET.finditer(text, start):
        depth += (mark[0] in "{[") - (mark[0] in "}]")
        if not depth:
            return mark.end()
    return len(text)


def _no_number(name: str) -> Any:
    raise NotFiniteError(f"{name} is no number in JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _no_number(digits[:40])


_DECODER = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite)
