"""What calls of one model may cost and do cost: reservations in tokens as reservations in money."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from asyncflow.llm.completion import Completion, Usage
from asyncflow.llm.embeddings import Embeddings
from asyncflow.llm.price import Price
from asyncflow.policy.budget import Budget, Reservation
from asyncflow.policy.tokens import TokenEstimate, Tokens

#: How much longer than nineteen of twenty an answer is taken to be at most, where max_tokens does not say.
_LONGEST = 4


@dataclass(slots=True)
class Spending:
    """A price and a budget.

    Attributes:
        answered: Whether an answer has come, so that something is known of how long answers are.

    Example:
        >>> spending = Spending(Price(1.0, 10.0), Budget(5.0))
        >>> spending.reserve(TokenEstimate(), 4000, 500).at_most
        0.009
    """

    price: Price
    budget: Budget
    answered: bool = False

    def reserve(self, estimate: TokenEstimate, size_bytes: int, max_tokens: int | None) -> Reservation:
        """Set aside what one request of this size costs; at most a token for each of its bytes is read.

        Without `max_tokens` the first answer may cost anything, so nothing starts beside it. How long it will
        be is not known, so a budget for which the guess is too much lets it start all the same.
        """
        return self.budget.reserve(probably=partial(self._costs, estimate, size_bytes, max_tokens))

    def _costs(self, estimate: TokenEstimate, size_bytes: int, max_tokens: int | None) -> tuple[float, float]:
        """What a request costs probably and at most, by what is known now."""
        read, written = estimate.input_tokens(size_bytes), estimate.output_tokens(max_tokens)
        longest = max_tokens if max_tokens is not None else _LONGEST * written
        most = self.price.of(Usage(max(read, estimate.most_input_tokens(size_bytes)), longest))
        probably = self.price.of(Usage(read, written))
        if max_tokens is None and not self.answered:
            most = max(most, self.budget.max_cost)
            if not estimate.answers:
                probably = max(self.price.of(Usage(read, 1)), min(probably, self.budget.max_cost))
        return probably, most

    def cost(self, call: Reservation, usage: Usage) -> None:
        """What an answer to the call cost: by its usage, or what was probable where it says nothing."""
        call.cost(self.price.of(usage) if usage.reported or usage.total_tokens else call.probably)
        self.answered = True


def most_written(body: Mapping[str, Any]) -> int | None:
    """The longest answer that a request asks for, whoever put it there, or None.

    Example:
        >>> most_written({"max_tokens": 50}), most_written({"max_completion_tokens": 9}), most_written({})
        (50, 9, None)
    """
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if isinstance(value, int) and value >= 1:
            return value
    return None


@dataclass(slots=True)
class CallMeter:
    """The `Meter` of one call to a model: reserves by what its lane has learnt, and teaches it.

    Attributes:
        max_tokens: The longest answer that is asked for.
        money: What is set aside for the call, where there is a budget.
        lose: Takes what an attempt without an answer probably used.
        not_text: By how much its request is longer than it counts; see `asyncflow.llm.parts`.
        told: Whether what the attempt under way used has been taken.
    """

    estimate: TokenEstimate
    max_tokens: int | None
    money: Reservation | None
    lose: Callable[[Usage], None]
    not_text: int = 0
    told: bool = False

    def reserve(self, size_bytes: int) -> int:
        """Tokens to reserve for a request of this size."""
        return self.estimate.reserve(size_bytes - self.not_text, self.max_tokens)

    def used(self, size_bytes: int, result: Any) -> int:
        """Tokens that the call with this answer used."""
        assert isinstance(result, Completion)
        return tokens_of(self.counted(size_bytes, result.usage, result.text))

    def counted(self, size_bytes: int, usage: Usage, text: str, *, whole: bool = True) -> Usage:
        """What an answer used: as it reports, else by its size; learns from it if it is whole.

        Args:
            size_bytes: Of the request.
            usage: What the answer reported; all of it, some, or nothing.
            text: What came of it.
            whole: Whether more would have come.
        """
        size_bytes -= self.not_text
        if whole and usage.total_tokens:
            self.estimate.learn(
                size_bytes, usage.input_tokens, usage.output_tokens, usage.cached_input_tokens
            )
            return usage
        written = max(usage.output_tokens, self.estimate.input_tokens(len(text.encode("utf-8", "replace"))))
        read = usage.input_tokens or self.estimate.input_tokens(size_bytes)
        if whole:
            self.estimate.learn(size_bytes, 0, written)
        return replace(usage, input_tokens=read, output_tokens=written, reported=False)

    def probable(self, size_bytes: int) -> Usage:
        """What an attempt uses by all that is known before it."""
        read = self.estimate.input_tokens(size_bytes - self.not_text)
        return Usage(read, self.estimate.output_tokens(self.max_tokens), reported=False)

    def lost(self, size_bytes: int) -> None:
        """An attempt without an answer used what it probably would have, unless more is known of it."""
        told, self.told = self.told, False
        if not told:
            self.lose(self.probable(size_bytes))
            if self.money is not None:
                self.money.cost(self.money.probably)

    async def again(self) -> None:
        """Before another attempt: its money is set aside anew."""
        self.told = False
        if self.money is not None:
            await self.money.again()


class EmbeddingMeter(CallMeter):
    """The same for a request of embeddings, which writes nothing."""

    def used(self, size_bytes: int, result: Any) -> int:
        """Tokens that the request used."""
        assert isinstance(result, Embeddings)
        self.estimate.learn(size_bytes, result.usage.input_tokens, 0)
        return tokens_of(result.usage) or self.reserve(size_bytes)


def tokens_of(usage: Usage) -> Tokens:
    """What an answer used, as a lane takes it."""
    return Tokens(usage.input_tokens, usage.output_tokens, cached=usage.cached_input_tokens)
