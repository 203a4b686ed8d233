"""asyncflow/http/hints.py: what headers say about when to come back."""

from __future__ import annotations

import math

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.http.hints import (
    Quota,
    RateLimits,
    quota_reset,
    rate_limits,
    request_id,
    retry_after,
    should_retry,
)

DATE = "Fri, 20 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([("retry-after", "5")], 5.0),
        ([("retry-after", " 5 ")], 5.0),
        ([("retry-after", "1.25")], 1.25),
        ([("retry-after", "0")], 0.0),
        ([("retry-after-ms", "1500")], 1.5),
        ([("retry-after-ms", "1500"), ("retry-after", "9")], 1.5),
        ([("retry-after-ms", "soon"), ("retry-after", "9")], 9.0),
        ([("retry-after", "2"), ("retry-after", "7")], 7.0),
        ([("retry-after", "Fri, 20 Nov 2026 12:00:30 GMT"), ("date", DATE)], 30.0),
        ([("retry-after", "Mon, 20 Nov 2026 12:00:30 GMT"), ("date", DATE)], 30.0),  # a wrong weekday
        ([("retry-after", "Fri, 20 Nov 2026 12:00:30"), ("date", DATE)], 30.0),  # no zone
        ([("retry-after", "Fri, 20 Nov 2026 11:00:00 GMT"), ("date", DATE)], 0.0),  # past
        ([("retry-after", "Fri, 20 Nov 2026 13:00:30 GMT"), ("date", "Fri, 20 Nov 2026 13:00:00 GMT")], 30.0),
        ([("retry-after", "Fri, 20 Nov 2026 12:01:00 GMT"), ("date", "nonsense")], 60.0),
        ([("retry-after", "Fri, 20 Nov 2026 12:01:00 GMT")], 60.0),
        ([("retry-after", "-1")], None),
        ([("retry-after", "inf")], None),
        ([("retry-after", "nan")], None),
        ([("retry-after", "1e3")], None),
        ([("retry-after", "")], None),
        ([("retry-after", "5 seconds")], None),
        ([("retry-after", "٥")], None),  # a digit, though not one of ASCII
        ([("retry-after", "1" * 35)], None),
        ([("retry-after", "99999999")], None),  # three years
        ([("retry-after", "Fri, 20 Nov 100000 12:00:00 GMT"), ("date", DATE)], None),
        ([("retry-after", "Fri, 99 Nov 2026 12:00:00 GMT"), ("date", DATE)], None),
        ([], None),
    ],
)
def test_retry_after(headers: list[tuple[str, str]], seconds: float | None) -> None:
    """Numbers, dates against the answer's own Date, the longest of several; nonsense counts as not said."""
    now = 1795176000.0  # DATE
    encoded = [(name, value.encode()) for name, value in headers]
    assert retry_after(httpx.Headers(encoded), now) == seconds  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.sampled_from(["retry-after", "retry-after-ms", "date"]), st.text(max_size=40))))
def test_no_header_breaks_it(headers: list[tuple[str, str]]) -> None:
    """Whatever a server writes, the answer is None or a wait of at most a week."""
    encoded = [(name, value.encode("utf-8", "replace")) for name, value in headers]
    found = retry_after(httpx.Headers(encoded))  # type: ignore[arg-type]
    assert found is None or (0 <= found <= 7 * 86400 and math.isfinite(found))


def test_quotas_of_openai() -> None:
    """Limits, what is left, and durations in their own notation."""
    headers = {
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m30.5s",
        "x-ratelimit-limit-tokens": "200000",
        "x-ratelimit-remaining-tokens": "nonsense",
        "x-ratelimit-reset-tokens": "20ms",
    }
    found = rate_limits(httpx.Headers(headers))
    assert found == RateLimits(Quota(10000, 0, 90.5), Quota(200000, None, 0.02))
    assert quota_reset(found) == 90.5


def test_quotas_of_anthropic() -> None:
    """Four kinds, and moments that count against the answer's Date."""
    headers = {
        "date": DATE,
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2026-11-20T12:00:01Z",
        "anthropic-ratelimit-output-tokens-remaining": "0",
        "anthropic-ratelimit-output-tokens-reset": "2026-11-20T12:00:10Z",
    }
    found = rate_limits(httpx.Headers(headers))
    assert found is not None and found.requests == Quota(50, 49, 1.0)
    assert found.output_tokens == Quota(None, 0, 10.0) and found.tokens is None
    assert quota_reset(found) == 10.0


def test_nothing_said() -> None:
    """No headers, no hints."""
    none = httpx.Headers()
    assert rate_limits(none) is None and quota_reset(None) is None
    assert should_retry(none) is None and should_retry(httpx.Headers({"x-should-retry": "maybe"})) is None
    assert request_id(none) is None and request_id(httpx.Headers({"Request-Id": "r1"})) == "r1"
