"""Anthropic's Messages protocol, the server's side: a pure translation."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from asyncflow.testing.asked import Asked, count_tokens, text_of_content
from asyncflow.testing.chat import answer_id, cut, input_tokens, messages_in
from asyncflow.testing.dialect import BadRequestError, frame, kind_of, pieces_of
from asyncflow.testing.quota import Quotas

_STOP = {"stop": "end_turn", "length": "max_tokens"}


class Messages:
    """`POST /v1/messages`."""

    path = "/v1/messages"

    def asked(self, body: Any) -> Asked:
        messages = messages_in(body)
        if not isinstance(body.get("max_tokens"), int):
            raise BadRequestError("max_tokens: Field required")
        if any(message.get("role") not in ("user", "assistant") for message in messages):
            raise BadRequestError("messages: a role is 'user' or 'assistant'; system text goes into 'system'")
        users = [text_of_content(one.get("content")) for one in messages if one["role"] == "user"]
        form = (body.get("output_config") or {}).get("format") or {}
        return Asked(
            "messages",
            body["model"],
            text_of_content(body.get("system")),
            users[-1] if users else "",
            messages,
            body,
            schema=form.get("schema"),
        )

    def tokens(self, asked: Asked, text: str) -> tuple[int, int]:
        return self._read(asked), count_tokens(cut(text, asked.body["max_tokens"])[0])

    def answer(self, asked: Asked, text: str) -> dict[str, Any]:
        text, reason = cut(text, asked.body["max_tokens"])
        content = [{"type": "text", "text": text}] if text else []
        return self._message(asked, content, _STOP[reason], count_tokens(text))

    def events(self, asked: Asked, text: str) -> Iterator[bytes]:
        text, reason = cut(text, asked.body["max_tokens"])
        start = self._message(asked, [], None, 1)
        yield frame({"type": "message_start", "message": start}, "message_start")
        block = {"type": "text", "text": ""}
        yield frame(
            {"type": "content_block_start", "index": 0, "content_block": block}, "content_block_start"
        )
        yield frame({"type": "ping"}, "ping")
        for piece in pieces_of(text):
            delta = {"type": "text_delta", "text": piece}
            yield frame({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")
        yield frame({"type": "content_block_stop", "index": 0}, "content_block_stop")
        end = {"stop_reason": _STOP[reason], "stop_sequence": None}
        usage = {"output_tokens": count_tokens(text)}
        yield frame({"type": "message_delta", "delta": end, "usage": usage}, "message_delta")
        yield frame({"type": "message_stop"}, "message_stop")

    def error(self, status: int, message: str, code: str | None) -> dict[str, Any]:
        return {"type": "error", "error": {"type": kind_of(status), "message": message}}

    def error_event(self) -> bytes:
        return frame(self.error(529, "Overloaded", None), "error")

    def headers(self, asked: Asked, quotas: Quotas) -> dict[str, str]:
        headers = {"request-id": answer_id("req", asked)}
        for what, bucket in (("requests", quotas.requests), ("tokens", quotas.tokens)):
            if bucket is not None:
                level = bucket.level()
                full = datetime.now(UTC) + timedelta(seconds=level.reset)
                headers[f"anthropic-ratelimit-{what}-limit"] = str(level.limit)
                headers[f"anthropic-ratelimit-{what}-remaining"] = str(level.remaining)
                headers[f"anthropic-ratelimit-{what}-reset"] = full.strftime("%Y-%m-%dT%H:%M:%SZ")
        return headers

    def _read(self, asked: Asked) -> int:
        return input_tokens(asked) + count_tokens(asked.system)

    def _message(self, asked: Asked, content: list[Any], reason: str | None, written: int) -> dict[str, Any]:
        return {
            "id": answer_id("msg", asked),
            "type": "message",
            "role": "assistant",
            "model": asked.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": {
                "input_tokens": self._read(asked),
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": written,
            },
        }
