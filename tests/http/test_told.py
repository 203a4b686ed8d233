"""asyncflow/http/told.py and failures.py: what providers' words for a failure stand for."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from asyncflow import errors
from asyncflow.http.failures import from_status, reported

_QUOTA = "You exceeded your current quota, please check your plan and billing details."
_TOO_LONG = "This model's maximum context length is 8192 tokens"
_MODERATION = {"code": 403, "message": "flagged", "metadata": {"reasons": ["violence"], "flagged_input": "…"}}


def _answer(status: int, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    request = httpx.Request("POST", "http://a.b/v1")
    return httpx.Response(status, headers=headers, content=json.dumps(body).encode(), request=request)


@pytest.mark.parametrize(
    ("status", "error", "headers", "kind"),
    [
        (
            429,
            {"message": _QUOTA, "code": "insufficient_quota"},
            {"retry-after": "1"},
            errors.AccessDeniedError,
        ),
        (429, {"message": _QUOTA}, {}, errors.AccessDeniedError),
        (429, {"message": _QUOTA}, {"retry-after": "1"}, errors.RateLimitedError),
        (429, {"message": f"{_QUOTA} Please retry in 0.5s."}, {}, errors.RateLimitedError),
        (429, {"code": 429, "message": _QUOTA, "status": "RESOURCE_EXHAUSTED"}, {}, errors.RateLimitedError),
        (429, {"message": "Too many tokens, wait"}, {}, errors.RateLimitedError),
        (400, {"message": "Your credit balance is too low"}, {}, errors.AccessDeniedError),
        (403, {"message": "no access to this model"}, {}, errors.AccessDeniedError),
        (403, _MODERATION, {}, errors.RequestRefusedError),
        (403, {"message": "no", "code": "content_policy_violation"}, {}, errors.RequestRefusedError),
        (422, {"message": _TOO_LONG}, {}, errors.RequestTooLargeError),
        (500, {"message": _TOO_LONG}, {}, errors.RequestTooLargeError),
        (503, {"message": "too many tokens in flight"}, {}, errors.ServerError),
    ],
)
@pytest.mark.parametrize("wrap", [lambda error: {"error": error}, lambda error: [{"error": error}]])
def test_a_status_with_words(
    status: int, error: Any, headers: dict[str, str], kind: type[errors.HTTPError], wrap: Any
) -> None:
    """A quota that comes back is no missing credit; what is about one prompt says nothing about the key."""
    found = from_status(_answer(status, wrap(error), headers))
    assert type(found) is kind and found.status == status
    assert error["message"][:40] in str(found)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "authentication_error"}, errors.AccessDeniedError),
        ({"type": "permission_error"}, errors.AccessDeniedError),
        ({"type": "invalid_request_error", "code": "invalid_api_key"}, errors.AccessDeniedError),
        ({"type": "invalid_request_error", "code": "insufficient_quota"}, errors.AccessDeniedError),
        ({"type": "rate_limit_error"}, errors.RateLimitedError),
        ({"type": "tokens", "code": "rate_limit_exceeded"}, errors.RateLimitedError),
        ({"code": "429"}, errors.RateLimitedError),
        ({"code": 429, "status": "RESOURCE_EXHAUSTED"}, errors.RateLimitedError),
        ({"type": "invalid_request_error", "code": "invalid_value"}, errors.RequestRefusedError),
        ({"type": "not_found_error"}, errors.RequestRefusedError),
        (_MODERATION, errors.RequestRefusedError),
        ({"type": "request_too_large"}, errors.RequestTooLargeError),
        ({"type": "invalid_request_error", "message": _TOO_LONG}, errors.RequestTooLargeError),
        ({"message": _TOO_LONG}, errors.RequestTooLargeError),
        ({"type": "overloaded_error"}, errors.ServerError),
        ({"type": "api_error"}, errors.ServerError),
        ({"code": 7}, errors.ServerError),
        ("later", errors.ServerError),
    ],
)
def test_an_error_told_with_a_good_status(error: Any, kind: type[errors.HTTPError]) -> None:
    """In a body or in an event of a stream: its type, code or number says what it is."""
    assert type(reported(_answer(200, {}), error)) is kind


_RETRY_INFO = [
    {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"},
]
_FULL = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "60s"}


@pytest.mark.parametrize(
    ("error", "headers", "seconds"),
    [
        ({"code": 429, "status": "RESOURCE_EXHAUSTED", "message": _QUOTA, "details": _RETRY_INFO}, {}, 34.07),
        ({"message": "Please retry in 9s.", "details": _RETRY_INFO}, {}, 34.07),
        ({"message": "slow", "details": _RETRY_INFO}, {"retry-after": "2"}, 2.0),
        ({"message": "Please try again in 20ms."}, {}, 0.02),
        ({"message": "Please try again in 20ms."}, {"retry-after-ms": "5"}, 0.005),
        (
            {"message": "Please try again in 1.5s."},
            _FULL,
            1.5,
        ),  # the other is of the whole
        ({"message": "slow"}, _FULL, 60.0),
        ({"message": "slow", "details": "later"}, {}, None),
        ("Rate limit is exceeded. Try again in 30 seconds.", {}, 30.0),
    ],
)
@pytest.mark.parametrize("wrap", [lambda error: {"error": error}, lambda error: [{"error": error}]])
def test_a_wait_that_no_header_says(
    error: Any, headers: dict[str, str], seconds: float | None, wrap: Any
) -> None:
    """A refusal's body says when to come back; a `Retry-After` counts before it."""
    found = from_status(_answer(429, wrap(error), headers))
    assert isinstance(found, errors.RateLimitedError) and found.retry_after == seconds


def test_a_wait_of_another_failure() -> None:
    """A server that is overloaded says it too, in a body that is no JSON, and in an event of a stream."""
    request = httpx.Request("POST", "http://a.b/v1")
    page = httpx.Response(503, content=b"<h1>Busy</h1> Please retry after 7 seconds.", request=request)
    found = from_status(page)
    assert isinstance(found, errors.ServerError) and found.retry_after == 7.0
    event = reported(_answer(200, {}), {"code": 429, "message": "slow", "details": _RETRY_INFO})
    assert isinstance(event, errors.RateLimitedError) and event.retry_after == 34.07
