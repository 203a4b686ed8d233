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
