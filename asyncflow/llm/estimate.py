"""What all of it will cost and take, from a sample of it: a pure function, and the record it gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from asyncflow.llm.completion import Completion, Usage
from asyncflow.llm.price import Price
from asyncflow.policy.adaptive import HIGHEST, START


@dataclass(frozen=True, slots=True)
class Range:
    """A figure, and between which two it lies nine times in ten.

    Attributes:
        expected: The best single figure.
        low, high: The range.
    """

    expected: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a whole job will need.

    Attributes:
        items: How many calls it has.
        sampled: How many of them were made for this estimate.
        failed: How many of those failed; they count in nothing below.
        input_tokens, output_tokens: Of all items together; unknown where `spent.reported` is False.
        cost: Of all items together, or None where there is no price, or an answer said nothing about usage.
        seconds_per_call: The mean, waits and retries included.
        spent: Tokens that the sample itself used.
        requests_per_minute, tokens_per_minute: Quotas that the job keeps to, or None.
    """

    items: int
    sampled: int
    failed: int
    input_tokens: Range
    output_tokens: Range
    cost: Range | None
    seconds_per_call: Range
    spent: Usage
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    def seconds(self, concurrency: int | Literal["auto"] = "auto") -> Range:
        """How long the whole job takes, if the provider keeps its pace. Never less than its quotas take.

        Args:
            concurrency: Calls at once; `"auto"`: as many as a limit that finds itself comes to where nothing
                is refused, for what a provider refuses is not known before.
        """
        rounds = rounds_of_auto(self.items) if concurrency == "auto" else self.items / max(1, concurrency)
        share = max(1.0, rounds)
        one = self.seconds_per_call
        return Range(
            *(
                max(call * share, self._by_quotas(read + written))
                for call, read, written in (
                    (one.expected, self.input_tokens.expected, self.output_tokens.expected),
                    (one.low, self.input_tokens.low, self.output_tokens.low),
                    (one.high, self.input_tokens.high, self.output_tokens.high),
                )
            )
        )

    def _by_quotas(self, tokens: float) -> float:
        requests, quota = self.requests_per_minute, self.tokens_per_minute
        minutes = (
            0.0 if requests is None else self.items / requests,
            0.0 if quota is None else tokens / quota,
        )
        return 60.0 * max(minutes)


def rounds_of_auto(items: int) -> float:
    """How many calls follow each other where `"auto"` doubles them once a round, and nothing is refused.

    Example:
        >>> rounds_of_auto(16), rounds_of_auto(16 + 32 + 32), rounds_of_auto(1_000_000) > 1000
        (1.0, 2.5, True)
    """
    at_once, rounds, left = START, 0.0, items
    while left > at_once and at_once < HIGHEST:
        left, rounds, at_once = left - at_once, rounds + 1.0, min(HIGHEST, 2 * at_once)
    return rounds + left / at_once


#: Two-sided 90 % points of Student's t, by degrees of freedom; 1.645 from 120 on.
_T90 = {1: 6.314, 2: 2.92, 3: 2.353, 4: 2.132, 5: 2.015, 7: 1.895, 10: 1.812, 15: 1.753, 30: 1.697, 60: 1.671}


def estimate_of(
    samples: Sequence[tuple[Completion, float]],
    items: int,
    failed: int,
    price: Price | None,
    *,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
) -> Estimate:
    """The estimate for `items` calls from a random sample of them.

    The range is Student's 90 % interval of the mean, scaled up, with the correction for a sample that is a
    large share of the whole: a sample of everything leaves no doubt.

    Args:
        samples: Answers with the seconds that each took, at least one.
        items: Calls in the whole job.
        failed: Sampled calls without an answer.
        price: Or None.
        requests_per_minute, tokens_per_minute: Quotas that the job keeps to, or None.

    Source:
        Cochran, Sampling Techniques (3rd ed., 1977), sections 2.5 to 2.8.
    """
    usages = [completion.usage for completion, _ in samples]
    spent = Usage()
    for usage in usages:
        spent += usage
    cost = None
    if price is not None and spent.reported:
        cost = _total([price.of(usage) for usage in usages], items)
    seconds = _total([took for _, took in samples], items)
    return Estimate(
        items,
        len(samples) + failed,
        failed,
        _total([float(usage.input_tokens) for usage in usages], items),
        _total([float(usage.output_tokens) for usage in usages], items),
        cost,
        Range(seconds.expected / items, seconds.low / items, seconds.high / items),
        spent,
        requests_per_minute,
        tokens_per_minute,
    )


def _total(values: Sequence[float], items: int) -> Range:
    """The total of all items, from the values of a sample."""
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Range(mean * items, 0.0, math.inf) if items > 1 else Range(mean, mean, mean)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    left = max(0.0, 1 - n / items)
    half = _t90(n - 1) * math.sqrt(variance / n * left)
    return Range(mean * items, max(0.0, mean - half) * items, (mean + half) * items)


def _t90(freedom: int) -> float:
    """Never below the true point: between two entries the one for fewer degrees counts."""
    return 1.645 if freedom >= 120 else max((k, t) for k, t in _T90.items() if k <= freedom)[1]
