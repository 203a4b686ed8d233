"""Our part of an output row: what became of the row, as values; and the same as cells of a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asyncflow.durability.plain import plain
from asyncflow.durability.store import FAILED, Record
from asyncflow.llm import Completion, Price, Usage

#: Names of our columns in JSON lines.
NAMES = ("answer", "finish_reason", "usage", "cost", "attempts", "error")

_TOKENS = ("input_tokens", "output_tokens", "cached_input_tokens")
_KINDS = {"string": "text", "integer": "int", "number": "float", "boolean": "bool"}


@dataclass(frozen=True, slots=True)
class Answered:
    """What asking for one row gave, as it is recorded."""

    answer: Any
    finish_reason: str
    usage: Usage
    cost: float | None
    attempts: int

    @staticmethod
    def of(completion: Completion, attempts: int, *, parsed: bool) -> Answered:
        """Of a completion; `parsed`: answers are values rather than text."""
        answer = completion.parsed if parsed else completion.text
        return Answered(answer, completion.finish_reason, completion.usage, completion.cost, attempts)


def result_of(record: Record, price: Price | None) -> dict[str, Any]:
    """Our columns for a row, the same ones however it ended.

    Args:
        record: What became of it.
        price: For tokens of answers that were of no use.
    """
    found = plain(record.data)
    usage: dict[str, int] | None
    if record.kind != FAILED:
        told = found["usage"]
        usage = {name: told[name] for name in _TOKENS}
        if not told.get("reported", True) and not any(usage.values()):  # zeros that mean "unknown"
            usage = None
        return {**{name: found[name] for name in NAMES[:-1]}, "usage": usage, "error": None}
    told = json.loads(record.usage) if record.usage else None
    used = None if told is None else Usage(*(told.get(name, 0) for name in _TOKENS))
    return {
        "answer": None,
        "finish_reason": None,
        "usage": None if used is None else {name: getattr(used, name) for name in _TOKENS},
        "cost": _cost(told, used, price),
        "attempts": found.get("attempts", record.attempts),
        "error": {"kind": found["kind"], "message": found["text"]},
    }


def _cost(told: Mapping[str, Any] | None, used: Usage | None, price: Price | None) -> float | None:
    if told is None or used is None:
        return None
    return told["cost"] if "cost" in told else None if price is None else price.of(used)


def skipped(reason: str) -> dict[str, Any]:
    """Our columns for a row that was not asked.

    Example:
        >>> skipped("budget")["error"]
        {'kind': 'Skipped', 'message': 'budget'}
    """
    nothing = dict.fromkeys(NAMES)
    return {**nothing, "attempts": 0, "error": {"kind": "Skipped", "message": reason}}


def table_columns(schema: Mapping[str, Any] | None) -> dict[str, str]:
    """Our columns in a table (CSV, Parquet), each with the kind of its values (see `Scan.kinds`).

    An answer of a form gets a column for each property of its schema.

    Example:
        >>> list(table_columns({"type": "object", "properties": {"stars": {"type": "integer"}}}))[:2]
        ['answer.stars', 'finish_reason']
    """
    properties = (schema or {}).get("properties")
    if schema is None:
        answer = {"answer": "text"}
    elif isinstance(properties, Mapping) and properties:
        answer = {f"answer.{name}": _kind_of_property(inner) for name, inner in properties.items()}
    else:
        answer = {"answer": "json"}
    tokens = {f"usage.{name}": "int" for name in _TOKENS}
    error = {"error.kind": "text", "error.message": "text"}
    return {**answer, "finish_reason": "text", **tokens, "cost": "float", "attempts": "int", **error}


def flat(result: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """A result as cells, by column.

    Example:
        >>> flat({"answer": {"stars": 3}}, {"answer.stars": "int", "cost": "float"})
        {'answer.stars': 3, 'cost': None}
    """
    cells = {}
    for column in columns:
        outer, _, inner = column.partition(".")
        value = result.get(outer)
        if inner:
            value = value.get(inner) if isinstance(value, Mapping) else None
        cells[column] = value
    return cells


def _kind_of_property(schema: Any) -> str:
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    return _KINDS.get(kind, "json") if isinstance(kind, str) else "json"
