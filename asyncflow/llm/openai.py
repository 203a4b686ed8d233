"""OpenAI's chat protocol, as spoken by OpenAI, vLLM, Ollama, DeepSeek, Groq, OpenRouter and others.

A pure translation: a request's dict out, a `Completion` in.
Source: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from typing import Any

from asyncflow.http import UnusableAnswerError
from asyncflow.llm.ask import Ask
from asyncflow.llm.completion import Completion, ToolCall, Usage
from asyncflow.llm.native import closed, fits_strict_mode
from asyncflow.llm.provider import Piece


class OpenAI:
    """The dialect.

    Example:
        >>> OpenAI().body(Ask("m", ({"role": "user", "content": "Hi"},)), "http://127.0.0.1/v1")
        {'model': 'm', 'messages': [{'role': 'user', 'content': 'Hi'}]}
    """

    name = "openai"
    default_base_url = "https://api.openai.com/v1"
    key_variable = "OPENAI_API_KEY"
    url_variable = "OPENAI_BASE_URL"
    embeddings_path: str | None = "/embeddings"
    base_url_hint = "for OpenAI's protocol it mostly ends in /v1"

    def headers(self, api_key: str) -> dict[str, str]:
        return {"authorization": f"Bearer {api_key}"} if api_key else {}

    def path(self) -> str:
        return "/chat/completions"

    def body(self, ask: Ask, base_url: str) -> dict[str, Any]:
        messages = list(ask.messages)
        if ask.system is not None:
            messages.insert(0, {"role": "system", "content": ask.system})
        body: dict[str, Any] = {"model": ask.model, "messages": messages}
        if ask.max_tokens is not None:
            # OpenAI's newer models refuse the old name; most other servers know only that one.
            name = "max_completion_tokens" if base_url == self.default_base_url else "max_tokens"
            body[name] = ask.max_tokens
        if ask.temperature is not None:
            body["temperature"] = ask.temperature
        if ask.stop:
            body["stop"] = list(ask.stop)
        if ask.tools:
            body["tools"] = list(ask.tools)
        if ask.schema is not None:
            schema = closed(ask.schema)
            form = {"name": ask.schema_name, "schema": schema, "strict": fits_strict_mode(schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        if ask.stream:
            body["stream"] = True
            body["stream_options"] = {"include_usage": True}
        if ask.extra:
            body.update(ask.extra)
        return body

    def completion(self, answer: Any, request_id: str | None = None) -> Completion:
        choices = answer.get("choices") if isinstance(answer, dict) else None
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            raise UnusableAnswerError("the answer has no choices")
        message = choice.get("message")
        if not isinstance(message, dict):
            raise UnusableAnswerError("the answer's choice has no message")
        tool_calls = _tool_calls(message.get("tool_calls"))
        finish_reason = choice.get("finish_reason") or ("tool_calls" if tool_calls else "stop")
        text = message.get("content")
        if text is None:
            refusal = message.get("refusal")
            if isinstance(refusal, str):
                text, finish_reason = refusal, "content_filter"
            elif tool_calls or finish_reason in ("length", "content_filter"):
                text = ""  # tools only, or every token went into thinking
        if isinstance(text, list):
            text = "".join(str(part.get("text", "")) for part in text if isinstance(part, dict))
        if not isinstance(text, str):
            raise UnusableAnswerError("the answer's message has no content")
        return Completion(
            text=text,
            usage=self.usage(answer),
            finish_reason=str(finish_reason),
            tool_calls=tool_calls,
            model=str(answer.get("model") or ""),
            request_id=request_id,
            raw=answer,
        )

    def usage(self, answer: Any) -> Usage:
        return usage_of(answer.get("usage") if isinstance(answer, dict) else None)

    def piece(self, event: str, data: Any) -> Piece:
        """One event of a stream; the end mark `[DONE]` is no JSON and comes as text."""
        if data == "[DONE]":
            return Piece(end=True)
        if not isinstance(data, dict):
            raise UnusableAnswerError("an event of the stream is not an object")
        if data.get("error"):
            return Piece(error=data["error"])
        if event == "error":
            return Piece(error=data)
        usage = self.usage(data) if data.get("usage") else None
        choice = _first(data.get("choices"))
        delta = choice.get("delta")
        delta = delta if isinstance(delta, dict) else {}
        refused = isinstance(delta.get("refusal"), str)
        text = delta["refusal"] if refused else delta.get("content")
        return Piece(
            text=text if isinstance(text, str) else "",
            finish_reason=choice.get("finish_reason"),
            usage=usage,
            model=str(data.get("model") or ""),
            refused=refused,
        )


def _first(choices: Any) -> dict[str, Any]:
    """The first of the choices that an event adds to: with `n` above 1 the others come between its pieces."""
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and not choice.get("index"):
            return choice
    return {}


def usage_of(usage: Any) -> Usage:
    """The `usage` object, or what stands for its absence.

    Example:
        >>> usage_of({"prompt_tokens": 7, "completion_tokens": 2}) == Usage(7, 2)
        True
        >>> usage_of(None).reported
        False
    """
    if not isinstance(usage, dict):
        return Usage(reported=False)
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    read, written = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
    return Usage(read, written, min(count(cached), read), reported=read + written > 0)


def count(value: Any) -> int:
    """A number of tokens, 0 where it is none; some gateways write it as a float.

    Example:
        >>> count(7), count(7.0), count("7"), count(None)
        (7, 7, 0, 0)
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and value >= 0 else 0


def _tool_calls(value: Any) -> tuple[ToolCall, ...]:
    calls = []
    for call in value if isinstance(value, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise UnusableAnswerError("a tool call in the answer has no function")
        calls.append(
            ToolCall(
                str(call.get("id", "")), str(function.get("name", "")), str(function.get("arguments", ""))
            )
        )
    return tuple(calls)
