"""What an answer's headers say about when to come back: pure functions from headers to numbers.

Servers and proxies write anything into these headers, so nothing here raises: what cannot be understood, or
cannot be meant, counts as not said.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

#: A wait longer than this is a mistake and not a message.
LONGEST = 7 * 86400.0

_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?", re.ASCII)
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)", re.ASCII)
_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_REQUEST_ID = frozenset({b"x-request-id", b"request-id", b"x-amzn-requestid"})


@dataclass(frozen=True, slots=True)
class Quota:
    """One quota as an answer reported it.

    Attributes:
        limit: What one period allows, or None.
        remaining: What is left of it, or None.
        reset: Seconds until it is full again, or None.
    """

    limit: int | None = None
    remaining: int | None = None
    reset: float | None = None


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The quotas that an answer reported, each None where it said nothing."""

    requests: Quota | None = None
    tokens: Quota | None = None
    input_tokens: Quota | None = None
    output_tokens: Quota | None = None


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
    waits = [_number(value, 0.001) for value in headers.get_list("retry-after-ms")]
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


def rate_limits(headers: httpx.Headers, now: float | None = None) -> RateLimits | None:
    """The quotas in `x-ratelimit-*` (OpenAI) or `anthropic-ratelimit-*`, or None where there are none.

    Example:
        >>> h = httpx.Headers({"x-ratelimit-limit-requests": "60", "x-ratelimit-reset-requests": "6m0s"})
        >>> rate_limits(h).requests
        Quota(limit=60, remaining=None, reset=360.0)
    """
    found = {}
    for what in ("requests", "tokens", "input-tokens", "output-tokens"):
        openai = [headers.get(f"x-ratelimit-{part}-{what}") for part in ("limit", "remaining", "reset")]
        anthropic = [
            headers.get(f"anthropic-ratelimit-{what}-{part}") for part in ("limit", "remaining", "reset")
        ]
        limit, remaining, reset = openai if any(openai) else anthropic
        if limit or remaining or reset:
            found[what.replace("-", "_")] = Quota(
                _count(limit), _count(remaining), _reset(reset, headers, now)
            )
    return RateLimits(**found) if found else None


def quota_reset(limits: RateLimits | None) -> float | None:
    """Seconds until the quotas that are used up are full again, or None where none is used up.

    Example:
        >>> quota_reset(RateLimits(requests=Quota(60, 0, 2.0), tokens=Quota(1000, 900, 30.0)))
        2.0
    """
    if limits is None:
        return None
    quotas = (limits.requests, limits.tokens, limits.input_tokens, limits.output_tokens)
    resets = [q.reset for q in quotas if q is not None and q.remaining == 0 and q.reset is not None]
    return max(resets, default=None)


def _number(value: str, unit: float = 1.0) -> float | None:
    value = value.strip()
    if not _NUMBER.fullmatch(value):
        return None
    return _plausible(float(value) * unit)


def _plausible(seconds: float) -> float | None:
    return seconds if 0.0 <= seconds <= LONGEST else None


def _seconds_or_date(value: str, headers: httpx.Headers, now: float | None) -> float | None:
    seconds = _number(value)
    if seconds is not None:
        return seconds
    return _until(_date(value), headers, now)


def _until(moment: float | None, headers: httpx.Headers, now: float | None) -> float | None:
    if moment is None:
        return None
    servers_now = _date(headers.get("date", ""))
    if servers_now is None:
        servers_now = time.time() if now is None else now
    return _plausible(max(0.0, moment - servers_now))


def _date(value: str) -> float | None:
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return _timestamp(moment)


def _timestamp(moment: datetime) -> float | None:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        return moment.timestamp()
    except (ValueError, OverflowError):
        return None


def _count(value: str | None) -> int | None:
    value = (value or "").strip()
    return int(value) if re.fullmatch(r"[0-9]{1,15}", value, re.ASCII) else None


def _reset(value: str | None, headers: httpx.Headers, now: float | None) -> float | None:
    """`6m0s`, `20ms` or plain seconds (OpenAI and kin), or an RFC 3339 date (Anthropic)."""
    value = (value or "").strip()
    seconds = _number(value)
    if seconds is not None:
        return seconds
    parts = _DURATION.findall(value)
    if parts and "".join(number + unit for number, unit in parts) == value:
        return _plausible(sum(float(number) * _UNIT[unit] for number, unit in parts))
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return _until(_timestamp(moment), headers, now)
