"""What calls of one model may cost and do cost: reservations in tokens as reservations in money."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from asyncflow.llm.completion import Completion, Usage
from asyncflow.llm.price import Price
from asyncflow.policy.budget import Budget, Reservation
from asyncflow.policy.tokens import TokenEstimate

#: How much longer than nineteen of twenty an answer is taken to be at most, where max_tokens does not say.
_LONGEST = 4


@dataclass(frozen=True, slots=True)
class Spending:
    """A price and a budget.

    Example:
        >>> spending = Spending(Price(1.0, 10.0), Budget(5.0))
        >>> spending.reserve(TokenEstimate(), 4000, 500).at_most
        0.006
    """

    price: Price
    budget: Budget

    def reserve(self, estimate: TokenEstimate, size_bytes: int, max_tokens: int | None) -> Reservation:
        """Set aside what one request of this size costs."""
        read, written = estimate.input_tokens(size_bytes), estimate.output_tokens(max_tokens)
        longest = max_tokens if max_tokens is not None else _LONGEST * written
        return self.budget.reserve(
            probably=self.price.of(Usage(read, written)), at_most=self.price.of(Usage(read, longest))
        )


@dataclass(slots=True)
class CallMeter:
    """The `Meter` of one call to a model: reserves by what its lane has learnt, and teaches it."""

    estimate: TokenEstimate
    max_tokens: int | None

    def reserve(self, size_bytes: int) -> int:
        """Tokens to reserve for a request of this size."""
        return self.estimate.reserve(size_bytes, self.max_tokens)

    def used(self, size_bytes: int, result: Any) -> int:
        """Tokens that the call used; answers without a report count as reserved."""
        assert isinstance(result, Completion)
        usage = result.usage
        if not usage.total_tokens:
            return self.reserve(size_bytes)
        self.estimate.learn(size_bytes, usage.input_tokens, usage.output_tokens)
        return usage.total_tokens
