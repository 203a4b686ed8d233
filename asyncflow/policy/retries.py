"""A budget for retries: in an outage, they come on top of what is new, and may not be most of the traffic.

What is spent delays the next retry until something new has started, or a second has passed. It fails nobody.

Source: Finagle's RetryBudget (a share of requests, and so many a second at least). Pure.
"""

from __future__ import annotations

import math


class RetryBudget:
    """How many retries may start by now.

    Args:
        share: Retries that each new call makes room for.
        per_second: Retries a second that there is always room for.
        most: Retries that may be saved up, and how many there are at first.

    Example:
        >>> budget = RetryBudget(share=0.2, per_second=1.0, most=2)
        >>> budget.take(0.0); budget.take(0.0)
        >>> budget.ready_at(0.0)
        1.0
    """

    __slots__ = ("_at", "_level", "_most", "_per_second", "_share")

    def __init__(self, *, share: float = 0.2, per_second: float = 2.0, most: float = 50.0) -> None:
        if not (0 <= share < math.inf and 0 < per_second < math.inf and 1 <= most < math.inf):
            raise ValueError(f"RetryBudget(share={share!r}, per_second={per_second!r}, most={most!r})")
        self._share = share
        self._per_second = per_second
        self._most = most
        self._level = most
        self._at = -math.inf

    def started(self) -> None:
        """A new call starts."""
        self._level = min(self._most, self._level + self._share)

    def ready_at(self, now: float) -> float:
        """When a retry may start, if nothing new does until then; `now`: at once."""
        self._refill(now)
        missing = 1.0 - self._level
        return now if missing <= 1e-9 else now + missing / self._per_second

    def take(self, now: float) -> None:
        """A retry starts."""
        self._refill(now)
        self._level -= 1.0

    def _refill(self, now: float) -> None:
        if self._at != -math.inf:
            self._level = min(self._most, self._level + (now - self._at) * self._per_second)
        self._at = now
