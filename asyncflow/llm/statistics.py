"""What an `LLMClient` has done so far: a frozen record."""

from __future__ import annotations

from dataclasses import dataclass, field

from asyncflow.llm.completion import Usage


@dataclass(frozen=True, slots=True)
class LLMStatistics:
    """What a client has done so far.

    Attributes:
        calls: Requests' calls that have ended, well or not; a re-ask is a call of its own.
        failed: Those that ended with an error.
        running: Calls under way now.
        attempts: Requests that went over the wire.
        refused: Attempts that were refused for now, by status 429 or in the words of an answer.
        reused: Answers that cost nothing: from the cache, or from an identical call in flight.
        reasked: Answers whose form was wrong, so that the model was asked again.
        usage: Tokens of all answers together, unusable ones included.
        cost: What they cost, or None where there is no price, or no answer said anything about usage.
        cached: Those of `reused` that were found in the cache.
        cache_misses: How often nothing was found there, so that the model was asked.
        cache_failures: How often the cache could not be read, or refused an answer.
    """

    calls: int = 0
    failed: int = 0
    running: int = 0
    attempts: int = 0
    refused: int = 0
    reused: int = 0
    reasked: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: float | None = None
    cached: int = 0
    cache_misses: int = 0
    cache_failures: int = 0
