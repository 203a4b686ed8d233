"""What an answer says about when to come back, in headers and in words: pure functions that give numbers.

Servers and proxies write anything there, so nothing here raises: what cannot be understood, or cannot be
meant, counts as not said. What headers say of quotas is read in `asyncflow.policy.reported`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import httpx

from asyncflow.policy.reported import Quota, RateLimits, date_of, number, quota_reset, rate_limits, until

__all__ = [
    "Quota",
    "RateLimits",
    "quota_reset",
    "rate_limits",
    "request_id",
    "retry_after",
    "should_retry",
    "wait_in_details",
    "wait_in_words",
]

#: What stands before a wait in a text: of OpenAI and Groq, Gemini and Azure, and of a quoted `RetryInfo`.
_BEFORE = re.compile(r"(?:\b(?:try again|retry) (?:in|after) |\bretryDelay\W{1,8})(?=[0-9])", re.I)
_PART = re.compile(
    r"([0-9]+(?:\.[0-9]+)?) ?(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?)(?![a-z]) ?", re.I
)
_UNIT = {"h": 3600.0, "m": 60.0, "s": 1.0}

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


def wait_in_details(details: Any) -> float | None:
    """Seconds that a `google.rpc.RetryInfo` among an error's `details` asks to wait, or None.

    Gemini sends no header: this is where its wait is, in the form of a protobuf duration in JSON.

    Example:
        >>> wait_in_details([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"}])
        34.07
    """
    for one in details if isinstance(details, list) else ():
        delay = one.get("retryDelay") if isinstance(one, Mapping) else None
        if isinstance(delay, str) and delay.endswith("s"):
            return number(delay[:-1])
    return None


def wait_in_words(text: str) -> float | None:
    """Seconds after which a text says to come back, or None.

    Example:
        >>> wait_in_words("Limit 3, Used 3. Please try again in 6m0.5s. Visit ...")
        360.5
        >>> wait_in_words("Please retry after 20 seconds."), wait_in_words("Please try again later.")
        (20.0, None)
    """
    before = _BEFORE.search(text)
    if before is None:
        return None
    seconds, at = 0.0, before.end()
    while (part := _PART.match(text, at)) is not None:
        unit = part[2].lower()
        one = number(part[1], 0.001 if unit.startswith(("ms", "mil")) else _UNIT[unit[0]])
        if one is None:
            return None
        seconds, at = seconds + one, part.end()
    return number(repr(seconds)) if at > before.end() else None


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
