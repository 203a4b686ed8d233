"""OpenAI's chat protocol, the server's side: a pure translation."""

from __future__ import annotations

import hashlib
from typing import Any

from asyncflow.testing.asked import Asked, count_tokens, text_of_content


class BadRequestError(ValueError):
    """The request is one that the real provider refuses with status 400."""


def asked_of(body: Any, headers: dict[str, str], index: int, occurrence: int, at: float) -> Asked:
    """The request as a record.

    Raises:
        BadRequestError: If it lacks what the real provider insists on.
    """
    if not isinstance(body, dict):
        raise BadRequestError("the body is not a JSON object")
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise BadRequestError("'messages' must be a list of objects")
    if not messages:
        raise BadRequestError("'messages' is empty: at least one message is needed")
    if not isinstance(body.get("model"), str):
        raise BadRequestError("you must provide a model parameter")
    by_role: dict[str, list[str]] = {}
    for message in messages:
        by_role.setdefault(str(message.get("role")), []).append(text_of_content(message.get("content")))
    system = "\n".join(by_role.get("system", []) + by_role.get("developer", []))
    prompt = by_role.get("user", [""])[-1]
    return Asked("chat", body["model"], system, prompt, tuple(messages), body, headers, index, occurrence, at)


def answer_to(asked: Asked, text: str) -> dict[str, Any]:
    """The answer's JSON, cut where `max_tokens` says."""
    text, finish_reason = cut(text, asked.body.get("max_completion_tokens") or asked.body.get("max_tokens"))
    return {
        "id": answer_id("chatcmpl", asked),
        "object": "chat.completion",
        "created": 1_700_000_000 + asked.index,
        "model": asked.model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": finish_reason,
            }
        ],
        "usage": usage_of(asked, text),
    }


def usage_of(asked: Asked, text: str) -> dict[str, Any]:
    """The tokens of one exchange."""
    read, written = input_tokens(asked), count_tokens(text)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def input_tokens(asked: Asked) -> int:
    """Tokens of all messages, and three for each message's frame."""
    return sum(3 + count_tokens(text_of_content(message.get("content"))) for message in asked.messages)


def cut(text: str, max_tokens: Any) -> tuple[str, str]:
    """The text as far as `max_tokens` allows, and why it ends there.

    Example:
        >>> cut("Hello, world", 2)
        ('Hello, w', 'length')
    """
    if isinstance(max_tokens, int) and count_tokens(text) > max_tokens:
        return text[: 4 * max_tokens], "length"
    return text, "stop"


def answer_id(prefix: str, asked: Asked) -> str:
    """A name that is the same whenever the same is asked the same time around."""
    digest = hashlib.blake2b(f"{asked.prompt}|{asked.occurrence}".encode("utf-8", "replace"), digest_size=12)
    return f"{prefix}-{digest.hexdigest()}"


def error_body(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    """An error as OpenAI words it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
