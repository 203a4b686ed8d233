"""Anthropic's Messages protocol, the server's side: a pure translation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from asyncflow import clock
from asyncflow.llm.completion import ToolCall
from asyncflow.testing.asked import Asked, count_tokens, text_of_content
from asyncflow.testing.chat import answer_id, input_tokens, messages_in
from asyncflow.testing.dialect import BadRequestError, checked_schema, frame, kind_of, pieces_of
from asyncflow.testing.quota import Quotas
from asyncflow.testing.said import Said

_STOP = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


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
            schema=checked_schema(form.get("schema"), "output_config.format.schema"),
            prefix=_prefix(body.get("system")),
        )

    def tokens(self, asked: Asked, said: Said) -> tuple[int, int]:
        return self._read(asked), said.cut(asked.body["max_tokens"])[0].tokens

    def answer(self, asked: Asked, said: Said) -> dict[str, Any]:
        said, reason = said.cut(asked.body["max_tokens"])
        content: list[Any] = [{"type": "text", "text": said.text}] if said.text else []
        content += [{**block, "input": _input(call.arguments)} for block, call in _blocks(said)]
        return self._message(asked, content, _STOP[reason], said.tokens)

    def events(self, asked: Asked, said: Said) -> Iterator[bytes]:
        said, reason = said.cut(asked.body["max_tokens"])

        def event(kind: str, **fields: Any) -> bytes:
            return frame({"type": kind, **fields}, kind)

        yield event("message_start", message=self._message(asked, [], None, 1))
        if not said.tool_calls:
            yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
            yield event("ping")
            for piece in pieces_of(said.text):
                yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
            yield event("content_block_stop", index=0)
        for index, (block, call) in enumerate(_blocks(said)):
            yield event("content_block_start", index=index, content_block={**block, "input": {}})
            for piece in pieces_of(call.arguments):
                delta = {"type": "input_json_delta", "partial_json": piece}
                yield event("content_block_delta", index=index, delta=delta)
            yield event("content_block_stop", index=index)
        end = {"stop_reason": _STOP[reason], "stop_sequence": None}
        yield event("message_delta", delta=end, usage={"output_tokens": said.tokens})
        yield event("message_stop")

    def error(self, status: int, message: str, code: str | None) -> dict[str, Any]:
        return {"type": "error", "error": {"type": kind_of(status), "message": message}}

    def error_event(self, status: int, message: str, code: str | None) -> bytes:
        return frame(self.error(status, message, code), "error")

    def headers(self, asked: Asked, quotas: Quotas) -> dict[str, str]:
        headers = {"request-id": answer_id("req", asked)}
        for name, bucket in quotas.buckets.items():
            what, level = name.replace("_", "-"), bucket.level()
            full = datetime.fromtimestamp(clock.wall() + level.reset, UTC)
            headers[f"anthropic-ratelimit-{what}-limit"] = str(level.limit)
            headers[f"anthropic-ratelimit-{what}-remaining"] = str(level.remaining)
            headers[f"anthropic-ratelimit-{what}-reset"] = full.strftime("%Y-%m-%dT%H:%M:%SZ")
        return headers

    def _read(self, asked: Asked) -> int:
        return input_tokens(asked) + count_tokens(asked.system)

    def _message(self, asked: Asked, content: list[Any], reason: str | None, written: int) -> dict[str, Any]:
        into_cache = count_tokens(asked.prefix) - asked.cached  # all of it the first time, then nothing
        return {
            "id": answer_id("msg", asked),
            "type": "message",
            "role": "assistant",
            "model": asked.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": {
                "input_tokens": self._read(asked) - asked.cached - into_cache,
                "cache_creation_input_tokens": into_cache,
                "cache_read_input_tokens": asked.cached,
                "output_tokens": written,
            },
        }


def _prefix(system: Any) -> str:
    """The text of the system's blocks as far as the last that is marked for the prompt cache."""
    blocks = system if isinstance(system, list) else []
    marked = [at for at, one in enumerate(blocks, 1) if isinstance(one, dict) and one.get("cache_control")]
    return text_of_content(blocks[: marked[-1]]) if marked else ""


def _blocks(said: Said) -> list[tuple[dict[str, Any], ToolCall]]:
    return [({"type": "tool_use", "id": call.id, "name": call.name}, call) for call in said.tool_calls]


def _input(arguments: str) -> Any:
    """The arguments as Anthropic gives them: JSON, not text."""
    return json.loads(arguments) if arguments.strip() else {}
