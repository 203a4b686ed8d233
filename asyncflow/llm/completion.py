"""What a call to a model gives: frozen records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, as the provider counted them.

    Attributes:
        input_tokens: Tokens read, cached ones included.
        output_tokens: Tokens written, reasoning included.
        cached_input_tokens: Those of `input_tokens` that came from the provider's prompt cache.
        reported: False where the answer said nothing about usage, so that zeros mean "unknown".
        cache_write_input_tokens: Those of `input_tokens` that were written to the provider's prompt cache,
            where it says so (Anthropic does).

    Example:
        >>> Usage(10, 2) + Usage(5, 1) == Usage(15, 3)
        True
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reported: bool = True
    cache_write_input_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Read and written together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.reported and other.reported,
            self.cache_write_input_tokens + other.cache_write_input_tokens,
        )


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool that the model asks for.

    Attributes:
        id: The provider's name for it, needed in the answer to it.
        name: The tool.
        arguments: Its arguments as the model wrote them: text that should be JSON.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer.

    Attributes:
        text: What it wrote; empty where it only called tools.
        usage: Tokens of the call. With re-asks, of all of them together.
        finish_reason: `"stop"`, `"length"` (cut at `max_tokens`), `"tool_calls"`, `"content_filter"`, or
            the provider's own word where it means none of these.
        parsed: The value, where a `schema` was asked for.
        cost: Money in the currency of the client's `price`, or None where there is no price, or the answer
            said nothing about usage.
        reused: True where no call was made: the answer came from a cache, or from an identical call in
            flight. Its usage and cost are then 0, so that sums stay right.
        cached: True where it came from a cache; then `reused` is True as well.
        tool_calls: Tools the model wants called.
        model: The model that answered, as the provider names it.
        request_id: The provider's name for the request, or None.
        raw: The answer as it came.
    """

    text: str
    usage: Usage = field(default_factory=Usage)
    finish_reason: str = "stop"
    parsed: Any = None
    cost: float | None = None
    reused: bool = False
    tool_calls: tuple[ToolCall, ...] = ()
    model: str = ""
    request_id: str | None = None
    raw: Any = field(default=None, repr=False, compare=False)
    cached: bool = False
