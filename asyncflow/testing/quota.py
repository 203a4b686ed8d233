"""What a provider lets through: requests and tokens per minute, and how many at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

#: Seconds of a wait that are rounding.
_HAIR = 1e-9


@dataclass(frozen=True, slots=True)
class Level:
    """A bucket as one answer reports it.

    Attributes:
        limit: What a minute allows.
        remaining: What is left now.
        reset: Seconds until it is full again.
    """

    limit: int
    remaining: int
    reset: float


class Bucket:
    """So much per minute, refilled all the time.

    Args:
        per_minute: What flows in each minute.
        burst: Seconds' worth that it holds when full; 60 lets a whole minute's quota through at once.
        now: The clock.

    Example:
        >>> clock = [0.0]
        >>> bucket = Bucket(60, 2.0, lambda: clock[0])
        >>> [bucket.wait_for(1) for _ in range(3) if not bucket.take(1)]
        [1.0]
    """

    def __init__(self, per_minute: float, burst: float, now: Callable[[], float]) -> None:
        if not (math.isfinite(per_minute) and per_minute > 0):
            raise ValueError(f"a quota of {per_minute!r} per minute: a finite number above 0 is needed")
        self._per_minute = per_minute
        self._size = max(1.0, per_minute * burst / 60.0)
        self._level = self._size
        self._now = now
        self._seen = now()

    def wait_for(self, amount: float) -> float:
        """Seconds until so much is there; more than the bucket holds needs a full one."""
        self._refill()
        return max(0.0, (min(amount, self._size) - self._level) * 60.0 / self._per_minute)

    def take(self, amount: float) -> bool:
        """Take so much if it is there. More than the bucket holds is let through when it is full."""
        if self.wait_for(amount) > _HAIR:
            return False
        self._level -= amount
        return True

    def level(self) -> Level:
        """What an answer reports."""
        self._refill()
        missing = self._size - self._level
        return Level(int(self._per_minute), max(0, int(self._level)), missing * 60.0 / self._per_minute)

    def _refill(self) -> None:
        now = self._now()
        self._level = min(self._size, self._level + (now - self._seen) * self._per_minute / 60.0)
        self._seen = now


class Slope:
    """A limit on how fast the rate may grow, as some providers have one beside their quotas.

    Args:
        growth: How many times as many requests a second may bring as the one before it.
        least: What a second may bring whatever came before it.
        now: The clock.

    Example:
        >>> clock = [0.0]
        >>> slope = Slope(1.5, 10, lambda: clock[0])
        >>> sum(slope.take() for _ in range(20))
        10
        >>> clock[0] = 1.0
        >>> sum(slope.take() for _ in range(20))
        15
    """

    def __init__(self, growth: float, least: int, now: Callable[[], float]) -> None:
        if not (math.isfinite(growth) and growth >= 1):
            raise ValueError(f"a slope of {growth!r}: a finite number from 1 is needed")
        self._growth = growth
        self._least = least
        self._now = now
        self._second = math.floor(now())
        self._before = self._count = 0

    def take(self) -> bool:
        """Let one more in, if this second may bring one more."""
        second = math.floor(self._now())
        if second != self._second:
            self._before = self._count if second == self._second + 1 else 0
            self._second, self._count = second, 0
        if self._count >= max(self._least, int(self._growth * self._before)):
            return False
        self._count += 1
        return True


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused, and for how long.

    Attributes:
        what: `"requests"`, `"tokens"`, `"input_tokens"`, `"output_tokens"`, `"concurrency"` or `"slope"`.
        wait: Seconds until it would be let through, or None where the provider does not say.
    """

    what: str
    wait: float | None


class Quotas:
    """All limits of one provider together.

    Args:
        now: The clock.
        burst: Seconds' worth that each quota holds when full.
        requests, tokens, input_tokens, output_tokens: What a minute allows; None: any number.
        at_once: How many at once.
        slope: As `Slope` takes its growth.
    """

    def __init__(
        self,
        now: Callable[[], float],
        burst: float = 60.0,
        *,
        requests: float | None = None,
        tokens: float | None = None,
        input_tokens: float | None = None,
        output_tokens: float | None = None,
        at_once: int | None = None,
        slope: float | None = None,
    ) -> None:
        per_minute = {
            "requests": requests,
            "tokens": tokens,
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
        }
        #: Those that there are, by name.
        self.buckets = {
            what: Bucket(amount, burst, now) for what, amount in per_minute.items() if amount is not None
        }
        self._slope = None if slope is None else Slope(slope, 10, now)
        self._at_once = at_once

    def enter(self, running: int) -> Refusal | None:
        """Let a request in beside `running` others, or say why not."""
        if self._at_once is not None and running >= self._at_once:
            return Refusal("concurrency", None)
        if self._slope is not None and not self._slope.take():
            return Refusal("slope", None)
        return self._take({"requests": 1})

    def charge(self, read: int, written: int, cached: int = 0) -> Refusal | None:
        """Let a request that is in use so many tokens, or say why not. Its request is spent either way.

        Args:
            read, written: Tokens of its prompt and of its answer.
            cached: Those of the prompt that come from the prompt cache, which count in `tokens` alone.
        """
        return self._take({"tokens": read + written, "input_tokens": read - cached, "output_tokens": written})

    def _take(self, amounts: Mapping[str, float]) -> Refusal | None:
        """From all that are named, or from none."""
        asked = [(what, self.buckets[what], amounts[what]) for what in amounts if what in self.buckets]
        waits = [(bucket.wait_for(amount), what) for what, bucket, amount in asked]
        longest, what = max(waits, default=(0.0, ""))
        if longest > _HAIR:
            return Refusal(what, longest)
        for _, bucket, amount in asked:
            bucket.take(amount)
        return None
