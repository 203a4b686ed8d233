"""What a lane is limited to: a frozen value, and the stricter of two."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

#: Calls at once: a number, `"auto"` for a limit that finds itself, or None for no limit.
Concurrency: TypeAlias = int | Literal["auto"] | None

#: The limits that are so much a minute.
PER_MINUTE = (
    "requests_per_minute", "tokens_per_minute", "input_tokens_per_minute", "output_tokens_per_minute",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LaneSettings:
    """Limits of one lane, each None where there is none.

    Args:
        requests_per_minute, tokens_per_minute: The provider's quotas, at least 1.
        concurrency: Calls at once: a number from 1, or `"auto"`.
        highest: What `"auto"` never exceeds; None stands for 1,000.
        input_tokens_per_minute, output_tokens_per_minute: Quotas of tokens read, those from the provider's
            prompt cache not counted, and of tokens written, where a provider counts them apart.

    Raises:
        ValueError: If a number is out of its range.
        TypeError: If something is not a number.

    Example:
        >>> LaneSettings(requests_per_minute=500).stricter(LaneSettings(600, concurrency=8))
        LaneSettings(requests_per_minute=500, tokens_per_minute=None, concurrency=8, highest=None)
        >>> LaneSettings(concurrency="auto").stricter(LaneSettings(concurrency=8)).highest
        8
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrency: Concurrency = None
    highest: int | None = None
    input_tokens_per_minute: float | None = field(default=None, repr=False)
    output_tokens_per_minute: float | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in PER_MINUTE:
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name}={value!r}: a number is needed, or None for no limit")
            if not 1 <= value < math.inf:
                raise ValueError(f"{name}={value!r}: a finite number from 1 is needed")
        if self.concurrency not in (None, "auto"):
            _whole("concurrency", self.concurrency, '"auto", or None, or a whole number')
        if self.highest is not None:
            _whole("highest", self.highest, "a whole number")

    def stricter(self, other: LaneSettings) -> LaneSettings:
        """Of each limit the lower one. `"auto"` and a number: found, but never above the number."""
        numbers = [c for c in (self.concurrency, other.concurrency) if isinstance(c, int)]
        highest = [h for h in (self.highest, other.highest) if h is not None]
        auto = "auto" in (self.concurrency, other.concurrency)
        return LaneSettings(
            _lower(self.requests_per_minute, other.requests_per_minute),
            _lower(self.tokens_per_minute, other.tokens_per_minute),
            "auto" if auto else min(numbers, default=None),
            min(highest + (numbers if auto else []), default=None),
            _lower(self.input_tokens_per_minute, other.input_tokens_per_minute),
            _lower(self.output_tokens_per_minute, other.output_tokens_per_minute),
        )


def _lower(one: float | None, other: float | None) -> float | None:
    return min((value for value in (one, other) if value is not None), default=None)


def _whole(name: str, value: object, needed: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}={value!r}: {needed} is needed")
    if value < 1:
        raise ValueError(f"{name}={value!r}: at least 1 is needed")
