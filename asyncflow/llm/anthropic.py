"""Anthropic's Messages protocol: a pure translation.

Source: https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

import json
from typing import Any

from asyncflow.http import UnusableAnswerError
from asyncflow.llm.ask import Ask
from asyncflow.llm.completion import Completion, ToolCall, Usage
from asyncflow.llm.native import closed
from asyncflow.llm.openai import count
from asyncflow.llm.provider import Piece

#: Anthropic demands a longest answer; this is asked for where the user did not.
DEFAULT_MAX_TOKENS = 4096

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class Anthropic:
    """The dialect.

    Example:
        >>> body = Anthropic().body(Ask("m", ({"role": "user", "content": "Hi"},), system="Be kind."), "")
        >>> body["system"], body["max_tokens"]
        ('Be kind.', 4096)
    """

    name = "anthropic"
    default_base_url = "https://api.anthropic.com"
    key_variable = "ANTHROPIC_API_KEY"
    url_variable = "ANTHROPIC_BASE_URL"
    embeddings_path: str | None = None
    base_url_hint = "for Anthropic's protocol it has no /v1 at its end"

    def headers(self, api_key: str) -> dict[str, str]:
        version = {"anthropic-version": "2023-06-01"}
        return {"x-api-key": api_key, **version} if api_key else version

    def path(self) -> str:
        return "/v1/messages"

    def body(self, ask: Ask, base_url: str) -> dict[str, Any]:
        messages = [message for message in ask.messages if message.get("role") != "system"]
        systems = [message["content"] for message in ask.messages if message.get("role") == "system"]
        body: dict[str, Any] = {
            "model": ask.model,
            "max_tokens": DEFAULT_MAX_TOKENS if ask.max_tokens is None else ask.max_tokens,
            "messages": messages,
        }
        system = [ask.system, *systems] if ask.system is not None else systems
        if system:
            texts = all(isinstance(part, str) for part in system)
            body["system"] = "\n\n".join(system) if texts else _blocks(system)
        if ask.temperature is not None:
            body["temperature"] = ask.temperature
        if ask.stop:
            body["stop_sequences"] = list(ask.stop)
        if ask.tools:
            body["tools"] = list(ask.tools)
        if ask.schema is not None:
            schema = closed(ask.schema, simple=True)
            body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        if ask.stream:
            body["stream"] = True
        if ask.extra:
            body.update(ask.extra)
        return body

    def completion(self, answer: Any, request_id: str | None = None) -> Completion:
        blocks = answer.get("content") if isinstance(answer, dict) else None
        if not isinstance(blocks, list):
            raise UnusableAnswerError("the answer has no content")
        stop_reason = answer.get("stop_reason")
        if not blocks and stop_reason not in ("max_tokens", "end_turn", "stop_sequence", "refusal"):
            raise UnusableAnswerError("the answer's content is empty")
        texts, calls = [], []
        for block in blocks:
            kind = block.get("type") if isinstance(block, dict) else None
            if kind == "text" and isinstance(block.get("text"), str):
                texts.append(block["text"])
            elif kind == "tool_use":
                arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
                calls.append(ToolCall(str(block.get("id", "")), str(block.get("name", "")), arguments))
            elif kind is None or kind == "text":
                raise UnusableAnswerError("a block of the answer's content has no type or no text")
        return Completion(
            text="".join(texts),
            usage=self.usage(answer),
            finish_reason=_FINISH.get(str(stop_reason), str(stop_reason or "stop")),
            tool_calls=tuple(calls),
            model=str(answer.get("model") or ""),
            request_id=request_id,
            raw=answer,
        )

    def usage(self, answer: Any) -> Usage:
        usage = answer.get("usage") if isinstance(answer, dict) else None
        if not isinstance(usage, dict):
            return Usage(reported=False)
        cached = count(usage.get("cache_read_input_tokens"))
        written = count(usage.get("cache_creation_input_tokens"))
        read = count(usage.get("input_tokens")) + cached + written  # Anthropic counts the three apart
        wrote = count(usage.get("output_tokens"))
        return Usage(read, wrote, cached, read + wrote > 0, written)

    def piece(self, event: str, data: Any) -> Piece:
        """One event of a stream."""
        kind = data.get("type", event) if isinstance(data, dict) else event
        if not isinstance(data, dict):
            raise UnusableAnswerError("an event of the stream is not an object")
        if kind == "error":
            return Piece(error=data.get("error") or data)
        if kind == "message_start":
            message = data.get("message") or {}
            return Piece(usage=self.usage(message), model=str(message.get("model") or ""))
        if kind == "content_block_delta":
            delta = data.get("delta") or {}
            return Piece(text=str(delta.get("text") or "")) if delta.get("type") == "text_delta" else Piece()
        if kind == "message_delta":
            stop_reason = (data.get("delta") or {}).get("stop_reason")
            wrote = count((data.get("usage") or {}).get("output_tokens"))
            reason = _FINISH.get(str(stop_reason), str(stop_reason)) if stop_reason else None
            return Piece(finish_reason=reason, usage=Usage(0, wrote, reported=wrote > 0))
        return Piece(end=kind == "message_stop")


def _blocks(system: list[Any]) -> list[Any]:
    blocks: list[Any] = []
    for part in system:
        blocks += [{"type": "text", "text": part}] if isinstance(part, str) else part
    return blocks
