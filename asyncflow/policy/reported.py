"""What answers say of the provider's quotas in their headers: pure functions from headers to numbers.

Servers and proxies write anything into these headers, so nothing here raises: what cannot be understood, or
cannot be meant, counts as not said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from asyncflow import clock

#: A wait longer than this is a mistake and not a message.
LONGEST = 7 * 86400.0

_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?", re.ASCII)
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)", re.ASCII)
_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


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


def rate_limits(headers: Mapping[str, str], now: float | None = None) -> RateLimits | None:
    """The quotas in `x-ratelimit-*` (OpenAI) or `anthropic-ratelimit-*`, or None where there are none.

    Example:
        >>> h = {"x-ratelimit-limit-requests": "60", "x-ratelimit-reset-requests": "6m0s"}
        >>> rate_limits(h).requests
        Quota(limit=60, remaining=None, reset=360.0)
    """
    said = {low: value for name, value in headers.items() if "ratelimit" in (low := name.lower())}
    if not said:
        return None
    found = {}
    for what in ("requests", "tokens", "input-tokens", "output-tokens"):
        openai = [said.get(f"x-ratelimit-{part}-{what}") for part in ("limit", "remaining", "reset")]
        anthropic = [
            said.get(f"anthropic-ratelimit-{what}-{part}") for part in ("limit", "remaining", "reset")
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


def number(value: str, unit: float = 1.0) -> float | None:
    """So many units as seconds, or None where it is no plausible number."""
    value = value.strip()
    if not _NUMBER.fullmatch(value):
        return None
    return _plausible(float(value) * unit)


def _plausible(seconds: float) -> float | None:
    return seconds if 0.0 <= seconds <= LONGEST else None


def until(moment: float | None, headers: Mapping[str, str], now: float | None) -> float | None:
    """Seconds until a moment of the server's own clock; one that has passed is 0."""
    if moment is None:
        return None
    servers_now = date_of(headers.get("date", ""))
    if servers_now is None:
        servers_now = clock.wall() if now is None else now
    return _plausible(max(0.0, moment - servers_now))


def date_of(value: str) -> float | None:
    """An HTTP date as seconds since the epoch, or None where it is none."""
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


def _reset(value: str | None, headers: Mapping[str, str], now: float | None) -> float | None:
    """`6m0s`, `20ms` or plain seconds (OpenAI and kin), or an RFC 3339 date (Anthropic)."""
    value = (value or "").strip()
    seconds = number(value)
    if seconds is not None:
        return seconds
    parts = _DURATION.findall(value)
    if parts and "".join(number + unit for number, unit in parts) == value:
        return _plausible(sum(float(number) * _UNIT[unit] for number, unit in parts))
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return until(_timestamp(moment), headers, now)
