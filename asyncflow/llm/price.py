"""What tokens cost: figures that the user gives, never a table that goes stale."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from asyncflow.llm.completion import Usage


@dataclass(frozen=True, slots=True)
class Price:
    """Money per million tokens, in one currency of the user's choice.

    Args:
        input_per_million: For tokens read.
        output_per_million: For tokens written.
        cached_input_per_million: For tokens read from the provider's prompt cache; by default as for input.
        cache_write_per_million: For tokens written to that cache; by default as for input. Anthropic takes
            1.25 times the price of input, or twice it for a cache of an hour.

    Example:
        >>> Price(2.0, 8.0).of(Usage(input_tokens=1000, output_tokens=500))
        0.006
    """

    input_per_million: float
    output_per_million: float
    cached_input_per_million: float | None = None
    cache_write_per_million: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"Price({field.name}={value!r}): a finite amount from 0 is needed")

    def of(self, usage: Usage) -> float:
        """What these tokens cost."""
        plain, cached, write = (
            self.input_per_million,
            self.cached_input_per_million,
            self.cache_write_per_million,
        )
        found, kept = usage.cached_input_tokens, usage.cache_write_input_tokens
        return (
            (usage.input_tokens - found - kept) * plain
            + found * (plain if cached is None else cached)
            + kept * (plain if write is None else write)
            + usage.output_tokens * self.output_per_million
        ) / 1e6
