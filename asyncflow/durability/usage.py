"""What items have cost, as text in a record and back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from asyncflow.outcome import Spent


def to_text(spent: Spent) -> str:
    """JSON; the cost only where it is known."""
    found: dict[str, Any] = {
        "input_tokens": spent.input_tokens,
        "output_tokens": spent.output_tokens,
        "cached_input_tokens": spent.cached_input_tokens,
    }
    if spent.cost is not None:
        found["cost"] = spent.cost
    return json.dumps(found)


def told_by(value: Any) -> str | None:
    """The same, of a result or an error that tells its `usage` and `cost` as a `Completion` does."""
    usage = getattr(value, "usage", None)
    read, written = getattr(usage, "input_tokens", None), getattr(usage, "output_tokens", None)
    if not isinstance(read, int) or not isinstance(written, int):
        return None
    if not (getattr(usage, "reported", True) or read or written):  # zeros that mean "unknown"
        return None
    cached, cost = getattr(usage, "cached_input_tokens", None), getattr(value, "cost", None)
    return to_text(
        Spent(
            read,
            written,
            cached if isinstance(cached, int) else 0,
            cost if isinstance(cost, (int, float)) else None,
        )
    )


def total(texts: Iterable[str | None]) -> Spent:
    """The sum of what `to_text` wrote."""
    found = Spent()
    for text in texts:
        if text is not None:
            found += Spent(**json.loads(text))
    return found
