"""Outcomes in the order of completion in, in the order of input out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Reorder:
    """Holds an outcome back until all before it have been handed on.

    It holds as many as the pool's window lets through, so memory is bounded by whoever bounds that.
    """

    def __init__(self, deliver: Callable[[Any], None]) -> None:
        self._deliver = deliver
        self._next = 0
        self._held: dict[int, Any] = {}

    def put(self, outcome: Any) -> None:
        """Take one outcome, hand on what is now in turn."""
        if outcome.index != self._next:
            self._held[outcome.index] = outcome
            return
        self._deliver(outcome)
        self._next += 1
        while self._held and self._next in self._held:
            self._deliver(self._held.pop(self._next))
            self._next += 1

    def flush(self) -> None:
        """Hand on what is held, in order, over the gaps: the items in the gaps will not come."""
        for index in sorted(self._held):
            self._deliver(self._held.pop(index))
