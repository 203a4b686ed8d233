"""asyncflow/http/hints.py: what an answer says about when to come back."""

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
    wait_in_details,
    wait_in_words,
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


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Limit 3, Used 3, Requested 1. Please try again in 20s. Visit https://a.b", 20.0),
        ("Please try again in 1.2s.", 1.2),
        ("Please try again in 20ms. Visit", 0.02),
        ("Please try again in 6m0s.", 360.0),
        ("Please try again in 9m38.016s. Need more tokens?", 578.016),
        ("Please try again in 1h2m3s", 3723.0),
        ("Please retry after 20 seconds.", 20.0),
        ("Rate limit is exceeded. Try again in 30 seconds.", 30.0),
        ("Try again in 1 minute.", 60.0),
        ("Please retry in 57.238747106s.", 57.238747106),
        ('{"error": {"details": [{"retryDelay": "34s"}]}}', 34.0),  # another server's body, quoted
        ("Please try again in 2s, or try again in 9s", 2.0),
        ("Please try again in 5", None),
        ("Please try again in 5 apples", None),
        ("Please try again in 5mm", None),
        ("Please try again in -5s", None),
        ("Please try again in 1e3s", None),
        ("Please try again in inf s", None),
        ("Please try again in 99999999s", None),  # three years
        ("Please try again in 6d", None),
        ("Please try again later.", None),
        ("", None),
    ],
)
def test_a_wait_in_words(text: str, seconds: float | None) -> None:
    """What providers write where no header says it; nonsense, and more than a week, counts as not said."""
    found = wait_in_words(text)
    assert found == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [("34s", 34.0), ("34.07s", 34.07), ("0s", 0.0), ("57.238747106s", 57.238747106)]
    + [(delay, None) for delay in ("", "s", "34", 34, "-1s", "infs", "nans", "1e3s", "99999999s", None, {})],
)
def test_a_wait_in_the_details(delay: object, seconds: float | None) -> None:
    """A `RetryInfo` says it, wherever it stands in the list."""
    kind = "type.googleapis.com/google.rpc."
    details = ["x", {"@type": kind + "Help", "links": []}, {"@type": kind + "RetryInfo", "retryDelay": delay}]
    assert wait_in_details(details) == seconds
    assert wait_in_details({"retryDelay": delay}) is None


@given(st.text(max_size=200), st.sampled_from(["try again in ", "retry after ", 'retryDelay": "']))
def test_no_words_break_it(text: str, before: str) -> None:
    """Whatever follows, the answer is None or a wait of at most a week."""
    found = wait_in_words(before + text)
    assert found is None or 0 <= found <= 7 * 86400


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
