"""What a model is asked, before any provider's dialect: a frozen record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

#: One message: `{"role": "user", "content": "…"}`; content may also be a list of the provider's parts.
Message: TypeAlias = Mapping[str, Any]
#: What `complete` takes: a prompt, or the messages of a conversation.
Prompt: TypeAlias = "str | Sequence[Message]"


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to a model.

    Attributes:
        model: The model's name.
        messages: The conversation, without the system text.
        system: The system text, or None.
        max_tokens: The longest answer, or None for the provider's own limit.
        temperature: Or None for the provider's own.
        stop: Texts that end the answer.
        tools: Tools in the provider's own form, passed through.
        schema: JSON schema of the answer, or None for free text.
        schema_name: What the schema is called on the way.
        extra: Fields added to the request as they are; they win over ours.
        stream: Whether the answer is wanted piece by piece.
    """

    model: str
    messages: tuple[Message, ...]
    system: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    stop: tuple[str, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    schema: Mapping[str, Any] | None = None
    schema_name: str = "answer"
    extra: Mapping[str, Any] | None = None
    stream: bool = False


def messages_of(prompt: Prompt) -> tuple[Message, ...]:
    """The conversation that a prompt stands for.

    Raises:
        TypeError: If it is neither text nor a sequence of messages.
        ValueError: If there is no message in it.

    Example:
        >>> messages_of("Hello")
        ({'role': 'user', 'content': 'Hello'},)
    """
    if isinstance(prompt, str):
        return ({"role": "user", "content": prompt},)
    if isinstance(prompt, (Mapping, bytes)) or not isinstance(prompt, Sequence):
        raise TypeError(
            f"a prompt is text or a list of messages such as {{'role': 'user', 'content': '…'}}, "
            f"not {type(prompt).__name__}"
        )
    for message in prompt:
        if not isinstance(message, Mapping) or "role" not in message:
            raise TypeError(f"a message is a dict with 'role' and 'content', not {message!r:.100}")
    if not prompt:
        raise ValueError("a prompt needs at least one message")
    return tuple(cast(Sequence[Message], prompt))


def check_options(max_tokens: Any, temperature: Any, stop: Any, tools: Any, extra: Any) -> None:
    """Refuse what no provider can mean, before a call is paid.

    Raises:
        TypeError: If one is of the wrong type.
        ValueError: If `max_tokens` is below 1.

    Example:
        >>> check_options("100", None, (), (), None)
        Traceback (most recent call last):
        ...
        TypeError: max_tokens='100': a whole number is needed
    """
    if max_tokens is not None:
        if not isinstance(max_tokens, int) or isinstance(max_tokens, bool):
            raise TypeError(f"max_tokens={max_tokens!r:.100}: a whole number is needed")
        if max_tokens < 1:
            raise ValueError(f"max_tokens={max_tokens!r}: at least 1 is needed")
    if temperature is not None and not isinstance(temperature, (int, float)):
        raise TypeError(f"temperature={temperature!r:.100}: a number is needed")
    if stop and not isinstance(stop, str) and not _are(stop, str):
        raise TypeError(f"stop={stop!r:.100}: a text or a list of texts is needed")
    if tools and not _are(tools, Mapping):
        raise TypeError(f"tools={tools!r:.100}: a list of tools in the provider's own form is needed")
    if extra is not None and not isinstance(extra, Mapping):
        raise TypeError(f"extra={extra!r:.100}: a dict of fields is needed")


def _are(several: Any, kind: type) -> bool:
    return isinstance(several, (list, tuple)) and all(isinstance(one, kind) for one in several)
