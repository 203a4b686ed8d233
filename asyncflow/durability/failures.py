"""Failures as text and back. An exception is not rebuilt by its name: it comes back as a `RecordedError`."""

from __future__ import annotations

import json
from typing import Any

from asyncflow.errors import RecordedError
from asyncflow.outcome import Failed

#: Some servers put a whole page into their message.
_LONGEST = 20_000


def dump(outcome: Failed) -> bytes:
    """The error's class, text and traceback, as JSON; and the attempts of the client that raised it."""
    error = outcome.error
    try:
        text = str(error)
    except Exception as exc:  # the text of an exception is the user's code
        text = f"<its str raises {type(exc).__name__}>"
    found: dict[str, Any] = {
        "kind": type(error).__qualname__,
        "text": text[:_LONGEST],
        "traceback": outcome.traceback[-_LONGEST:],
    }
    attempts = getattr(error, "attempts", None)
    if isinstance(attempts, int):
        found["attempts"] = attempts
    return json.dumps(found).encode("ascii")


def load(data: bytes, attempts: int) -> Failed:
    """A failure with the same text, and the kind for whoever counts kinds."""
    found = json.loads(data)
    kind, text = found["kind"], found["text"]
    error = RecordedError(f"{kind}: {text}" if text else kind, kind=kind)
    return Failed(error, attempts=attempts, traceback=found["traceback"])


def short(value: Any, size: int = 120) -> str:
    """A value in a message or a column: one that any database takes, and of bounded length."""
    try:
        text = value if type(value) is str else repr(value)
    except Exception as exc:
        text = f"<{type(value).__qualname__}, whose repr raises {type(exc).__name__}>"
    text = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    return text if len(text) <= size else text[: size - 1] + "…"
