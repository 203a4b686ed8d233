"""What a server tells of a failure, in the words of several providers, and the error that it stands for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asyncflow import errors
from asyncflow.http import hints

#: Statuses below 500 that pass by themselves.
_PASSING = frozenset({408, 409, 425})
_DENIED = frozenset({401, 402, 403})
#: Codes with which providers say, under 400 or 429, what has a status of its own elsewhere.
_NO_CREDIT = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "account_deactivated"}
)
_NO_CREDIT_TEXT = re.compile(r"credit balance is too low|exceeded your current quota", re.I)
#: What stands beside a text about a quota that comes back by itself, though it may not say when.
_COMES_BACK = re.compile(r"RESOURCE_EXHAUSTED|retryDelay")
_TOO_LONG = frozenset({"context_length_exceeded", "string_above_max_length", "request_too_large"})
_SURELY_TOO_LONG_TEXT = re.compile(r"maximum context length|prompt is too long", re.I)
_TOO_LONG_TEXT = re.compile(rf"{_SURELY_TOO_LONG_TEXT.pattern}|context window|too many tokens", re.I)
#: Codes that are about one prompt, though some gateways send 403 with them.
_MODERATED = frozenset(
    {"content_filter", "content_policy_violation", "moderation_blocked", "responsibleaipolicyviolation"}
)
#: The status that a code or type stands for, where it is told without one.
_STATUS = {
    **dict.fromkeys(("authentication_error", "invalid_api_key", "UNAUTHENTICATED"), 401),
    **dict.fromkeys(("permission_error", "permission_denied", "PERMISSION_DENIED"), 403),
    **dict.fromkeys(("rate_limit_error", "rate_limit_exceeded", "RESOURCE_EXHAUSTED"), 429),
    **dict.fromkeys(("invalid_request_error", "INVALID_ARGUMENT", *_MODERATED), 400),
    **dict.fromkeys(("not_found_error", "model_not_found", "NOT_FOUND"), 404),
    "billing_error": 402,
    "request_too_large": 413,
    "overloaded_error": 529,
}


@dataclass(frozen=True, slots=True)
class Told:
    """What an error's fields say.

    Attributes:
        message: The server's own words, or None where it has none.
        code: Its name for the failure: the first that is a text of `code`, `type` and `status`.
        status: The status that it names, by number or by such a name; None where it names none.
        moderated: Whether it is about what one prompt says.
        retry_after: Seconds after which it says to come back, or None.
    """

    message: str | None = None
    code: str | None = None
    status: int | None = None
    moderated: bool = False
    retry_after: float | None = None


def told(fields: Mapping[str, Any]) -> Told:
    """Read an error's fields.

    Example:
        >>> told({"type": "rate_limit_error", "message": "slow"})
        Told(message='slow', code='rate_limit_error', status=429, moderated=False, retry_after=None)
    """
    message = fields.get("message") or fields.get("detail") or fields.get("error")
    number = fields.get("code")
    names = [one for name in ("code", "type", "status") if isinstance(one := fields.get(name), str) and one]
    status = number if isinstance(number, int) else int(names[0]) if names and names[0].isdecimal() else 0
    if not 400 <= status < 600:
        status = next((_STATUS[name] for name in names if name in _STATUS), 0)
    more = fields.get("metadata")
    message = message if isinstance(message, str) else None
    wait = hints.wait_in_details(fields.get("details"))
    return Told(
        message,
        names[0] if names else None,
        status or None,
        any(name.lower() in _MODERATED for name in names)
        or (isinstance(more, Mapping) and bool(more.get("reasons") or more.get("flagged_input"))),
        hints.wait_in_words(message) if wait is None and message is not None else wait,
    )


def error_fields(body: Any) -> Any:
    """The part of a body that is about the failure: `error`, or all of it; of a list, its first."""
    if isinstance(body, list) and body:
        body = body[0]
    return body.get("error", body) if isinstance(body, dict) else body


def kind_of(status: int, what: Told, text: str, *, comes_back: bool) -> type[errors.HTTPError]:
    """The error that a failure stands for.

    Args:
        status: The answer's, or the one that is told.
        what: What the error's fields say.
        text: All that is said.
        comes_back: Whether the answer says when to come back.
    """
    if status == 403 and what.moderated:
        return errors.RequestRefusedError
    if status in _DENIED or what.code in _NO_CREDIT:
        return errors.AccessDeniedError
    if _NO_CREDIT_TEXT.search(text) and (
        status == 400 or (status == 429 and not comes_back and not _COMES_BACK.search(text))
    ):
        return errors.AccessDeniedError
    if status == 429:  # "too many tokens" is said of a minute, too
        return errors.RateLimitedError
    too_long = _SURELY_TOO_LONG_TEXT if status >= 500 else _TOO_LONG_TEXT
    if status == 413 or what.code in _TOO_LONG or (status >= 400 and too_long.search(text)):
        return errors.RequestTooLargeError
    if status in _PASSING or status >= 500:
        return errors.ServerError
    if status < 400:
        return errors.RedirectError
    return errors.RequestRefusedError


def fields_text(fields: Any) -> str:
    """An error's fields as text.

    Example:
        >>> fields_text({"code": 7})
        '{"code": 7}'
    """
    return json.dumps(fields, default=str, ensure_ascii=False)
