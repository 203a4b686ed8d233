"""What an answer's headers say about when to come back: pure functions from headers to numbers.

Servers and proxies write anything into these headers, so nothing here raises: what cannot be understood, or
cannot be meant, counts as not said. What they say of quotas is read in `asyncflow.policy.reported`.
"""

from __future__ import annotations

import httpx

from asyncflow.policy.reported import Quota, RateLimits, date_of, number, quota_reset, rate_limits, until

__all__ = ["Quota", "RateLimits", "quota_reset", "rate_limits", "request_id", "retry_after", "should_retry"]

_REQUEST_ID = frozenset({b"x-request-id", b"request-id", b"x-amzn-requestid"})


def retry_after(headers: httpx.Headers, now: float | None = None) -> float | None:
    """Seconds the server asks to wait: `retry-after-ms`, else `Retry-After`, else None.

    A date is taken against the answer's own `Date`, so a server whose clock is wrong is still understood. Of
    several values the longest counts. Negative numbers, `inf`, `nan`, and more than a week count as not said;
    a date that has passed means 0.

    Args:
        headers: The answer's headers.
        now: Seconds since the epoch, used where the answer has no `Date`; by default the wall clock.

    Example:
        >>> retry_after(httpx.Headers({"retry-after": "1.5"}))
        1.5
        >>> retry_after(httpx.Headers({"retry-after": "nan"})) is None
        True
    """
    waits = [number(value, 0.001) for value in headers.get_list("retry-after-ms")]
    if all(wait is None for wait in waits):
        waits = [_seconds_or_date(value, headers, now) for value in headers.get_list("retry-after")]
    return max((wait for wait in waits if wait is not None), default=None)


def should_retry(headers: httpx.Headers) -> bool | None:
    """What `x-should-retry` says, or None.

    Example:
        >>> should_retry(httpx.Headers({"x-should-retry": "false"}))
        False
    """
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


def request_id(headers: httpx.Headers) -> str | None:
    """The provider's name for this request, or None."""
    for name, value in headers.raw:
        if name.lower() in _REQUEST_ID:
            return value[:200].decode("latin-1")
    return None


def _seconds_or_date(value: str, headers: httpx.Headers, now: float | None) -> float | None:
    seconds = number(value)
    if seconds is not None:
        return seconds
    return until(date_of(value), headers, now)
