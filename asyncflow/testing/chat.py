"""OpenAI's chat protocol, the server's side: a pure translation."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any

from asyncflow.testing.asked import Asked, count_tokens, text_of_content
from asyncflow.testing.dialect import BadRequestError, checked_schema, frame, kind_of, pieces_of
from asyncflow.testing.quota import Quotas
from asyncflow.testing.said import Said


class Chat:
    """`POST /v1/chat/completions`."""

    path = "/v1/chat/completions"

    def asked(self, body: Any) -> Asked:
        messages = messages_in(body)
        by_role: dict[str, list[str]] = {}
        for message in messages:
            by_role.setdefault(str(message.get("role")), []).append(text_of_content(message.get("content")))
        form = body.get("response_format")
        schema = None
        if isinstance(form, dict) and form.get("type") == "json_schema":
            schema = checked_schema((form.get("json_schema") or {}).get("schema"), "response_format")
        elif isinstance(form, dict) and form.get("type") == "json_object":
            schema = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
        return Asked(
            "chat",
            body["model"],
            "\n".join(by_role.get("system", []) + by_role.get("developer", [])),
            by_role.get("user", [""])[-1],
            messages,
            body,
            schema=schema,
        )

    def tokens(self, asked: Asked, said: Said) -> tuple[int, int]:
        return input_tokens(asked), self._cut(asked, said)[0].tokens

    def answer(self, asked: Asked, said: Said) -> dict[str, Any]:
        said, finish_reason = self._cut(asked, said)
        message: dict[str, Any] = {"role": "assistant", "content": said.text, "refusal": None}
        if said.tool_calls:
            message |= {"content": None, "tool_calls": _calls(said)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
        return self._frame(asked, "chat.completion", [choice], self._usage(asked, said))

    def events(self, asked: Asked, said: Said) -> Iterator[bytes]:
        said, finish_reason = self._cut(asked, said)

        def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            return frame(self._frame(asked, "chat.completion.chunk", [choice], None))

        yield chunk({"role": "assistant", "content": ""})
        for index, call in enumerate(_calls(said)):
            yield chunk({"tool_calls": [{"index": index, **call}]})
        for piece in pieces_of(said.text):
            yield chunk({"content": piece})
        yield chunk({}, finish_reason)
        if (asked.body.get("stream_options") or {}).get("include_usage"):
            yield frame(self._frame(asked, "chat.completion.chunk", [], self._usage(asked, said)))
        yield frame("[DONE]")

    def error(self, status: int, message: str, code: str | None) -> dict[str, Any]:
        return {"error": {"message": message, "type": kind_of(status), "param": None, "code": code}}

    def error_event(self, status: int, message: str, code: str | None) -> bytes:
        return frame(self.error(status, message, code))

    def headers(self, asked: Asked, quotas: Quotas) -> dict[str, str]:
        headers = {"x-request-id": answer_id("req", asked)}
        for name, bucket in quotas.buckets.items():
            what, level = name.replace("_", "-"), bucket.level()
            headers[f"x-ratelimit-limit-{what}"] = str(level.limit)
            headers[f"x-ratelimit-remaining-{what}"] = str(level.remaining)
            headers[f"x-ratelimit-reset-{what}"] = duration(level.reset)
        return headers

    def _cut(self, asked: Asked, said: Said) -> tuple[Said, str]:
        return said.cut(asked.body.get("max_completion_tokens") or asked.body.get("max_tokens"))

    def _usage(self, asked: Asked, said: Said) -> dict[str, Any]:
        read, written = input_tokens(asked), said.tokens
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": 0},
        }

    def _frame(self, asked: Asked, kind: str, choices: list[Any], usage: Any) -> dict[str, Any]:
        return {
            "id": answer_id("chatcmpl", asked),
            "object": kind,
            "created": 1_700_000_000 + asked.index,
            "model": asked.model,
            "choices": choices,
            "usage": usage,
        }


def messages_in(body: Any) -> tuple[dict[str, Any], ...]:
    """The messages of a request that is fit to be answered.

    Raises:
        BadRequestError: If it is not.
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
    return tuple(messages)


def input_tokens(asked: Asked) -> int:
    """Tokens of all messages, and three for each message's frame."""
    return sum(3 + count_tokens(text_of_content(message.get("content"))) for message in asked.messages)


def _calls(said: Said) -> list[dict[str, Any]]:
    return [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in said.tool_calls
    ]


def answer_id(prefix: str, asked: Asked) -> str:
    """A name that is the same whenever the same is asked the same time around."""
    digest = hashlib.blake2b(f"{asked.prompt}|{asked.occurrence}".encode("utf-8", "replace"), digest_size=12)
    return f"{prefix}-{digest.hexdigest()}"


def duration(seconds: float) -> str:
    """Seconds as OpenAI writes them.

    Example:
        >>> duration(0.02), duration(1.5), duration(90)
        ('20ms', '1.5s', '1m30s')
    """
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    return (f"{int(minutes)}m" if minutes else "") + f"{rest:g}s"
