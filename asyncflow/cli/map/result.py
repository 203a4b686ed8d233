"""Our part of an output row: what became of the row, as values; and the same as cells of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asyncflow.llm import Completion, Price
from asyncflow.outcome import Failed, Ok, Outcome, Skipped

#: Names of our columns in JSON lines.
NAMES = ("answer", "finish_reason", "usage", "cost", "attempts", "error")

_TOKENS = ("input_tokens", "output_tokens", "cached_input_tokens")
_KINDS = {"string": "text", "integer": "int", "number": "float", "boolean": "bool"}


@dataclass(frozen=True, slots=True)
class Answered:
    """What asking for one row gave: the answer, and how many attempts it took."""

    completion: Completion
    attempts: int


def result_of(outcome: Outcome[Answered], price: Price | None, *, parsed: bool) -> dict[str, Any]:
    """Our columns for a row, the same ones however it ended.

    Args:
        outcome: What became of it.
        price: For tokens of answers that were of no use.
        parsed: Whether answers are values rather than text.

    Example:
        >>> result_of(Ok(Answered(Completion("Salut"), 2)), None, parsed=False)["answer"]
        'Salut'
        >>> result_of(Skipped("budget"), None, parsed=False)["error"]
        {'kind': 'Skipped', 'message': 'budget'}
    """
    if isinstance(outcome, Ok):
        completion = outcome.value.completion
        return {
            "answer": completion.parsed if parsed else completion.text,
            "finish_reason": completion.finish_reason,
            "usage": _usage(completion.usage),
            "cost": completion.cost,
            "attempts": outcome.value.attempts,
            "error": None,
        }
    used = getattr(outcome.error, "usage", None) if isinstance(outcome, Failed) else None
    return {
        "answer": None,
        "finish_reason": None,
        "usage": None if used is None else _usage(used),
        "cost": None if used is None or price is None else price.of(used),
        "attempts": 0 if reason_of(outcome) else _attempts(outcome),
        "error": {"kind": kind_of_error(outcome), "message": message_of(outcome)},
    }


def reason_of(outcome: Outcome[Any]) -> str:
    """Why a row was skipped; empty if it was not.

    An error that carries a `reason` says that its call was never made, for a reason that is not its own.
    """
    if isinstance(outcome, Skipped):
        return outcome.reason
    reason = getattr(outcome.error, "reason", None) if isinstance(outcome, Failed) else None
    return reason if reason == "budget" else ""


def kind_of_error(outcome: Failed | Skipped) -> str:
    """The error's class, by which errors are counted."""
    if reason_of(outcome) or isinstance(outcome, Skipped):
        return "Skipped"
    return type(outcome.error).__name__


def message_of(outcome: Failed | Skipped) -> str:
    """What the error says."""
    reason = reason_of(outcome)
    return reason if reason or isinstance(outcome, Skipped) else str(outcome.error)


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


def _usage(usage: Any) -> dict[str, int]:
    return {name: getattr(usage, name) for name in _TOKENS}


def _attempts(outcome: Failed | Skipped) -> int:
    made = getattr(outcome.error, "attempts", None) if isinstance(outcome, Failed) else None
    return made if isinstance(made, int) else outcome.attempts
