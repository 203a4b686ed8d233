"""What a simulated provider needs of a protocol: a translation in both directions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Protocol

from asyncflow.llm.schema_check import problem_of
from asyncflow.testing.asked import Asked
from asyncflow.testing.quota import Quotas
from asyncflow.testing.said import Said


class BadRequestError(ValueError):
    """The request is one that the real provider refuses with status 400."""


class Dialect(Protocol):
    """One protocol, the server's side. Pure."""

    path: str

    def asked(self, body: Any) -> Asked:
        """The request as a record.

        Raises:
            BadRequestError: If it lacks what the real provider insists on.
        """

    def tokens(self, asked: Asked, said: Said) -> tuple[int, int]:
        """Tokens read and written."""

    def answer(self, asked: Asked, said: Said) -> dict[str, Any]:
        """The answer's JSON."""

    def events(self, asked: Asked, said: Said) -> Iterator[bytes]:
        """The answer as server-sent events, the end mark last."""

    def error(self, status: int, message: str, code: str | None) -> dict[str, Any]:
        """An error's JSON."""

    def error_event(self, status: int, message: str, code: str | None) -> bytes:
        """An error as an event of a stream."""

    def headers(self, asked: Asked, quotas: Quotas) -> dict[str, str]:
        """Headers of an answer: the request's name, and what is left of the quotas."""


def checked_schema(schema: Any, name: str) -> Any:
    """The schema that a request asks with, if it can be one.

    Raises:
        BadRequestError: If it cannot.
    """
    wrong = "" if schema is None else problem_of(schema, schema)
    if wrong:
        raise BadRequestError(f"Invalid schema for {name}: {wrong}")
    return schema


def frame(data: Any, event: str | None = None) -> bytes:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {event}\n" if event else "").encode() + f"data: {text}\n\n".encode()


def pieces_of(text: str) -> Iterator[str]:
    """The text in pieces of about one token.

    Example:
        >>> list(pieces_of("Hello, world"))
        ['Hell', 'o, w', 'orld']
    """
    for start in range(0, len(text), 4):
        yield text[start : start + 4]


def kind_of(status: int) -> str:
    """The word that providers have for a status."""
    return {
        400: "invalid_request_error",
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        529: "overloaded_error",
    }.get(status, "api_error" if status >= 500 else "invalid_request_error")
