"""What a simulated provider was asked, and how it counts tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, whatever protocol it came in.

    Attributes:
        kind: `"chat"`, `"messages"` or `"embeddings"`.
        model: The model it names.
        system: Its system text, or `""`.
        prompt: The text of the last user message.
        messages: All messages as they came.
        body: The whole request.
        headers: Its headers, lower case, without credentials.
        index: Requests before it, from 0.
        occurrence: Requests of exactly the same body before it, from 0. At least the newest 50,000 different
            bodies are remembered.
        at: Seconds since the provider was opened.
        schema: The JSON schema that the answer must satisfy, or None.
        prefix: What of its system text is marked for the prompt cache (Anthropic's `cache_control`).
        cached: Tokens that come from that cache: those of the prefix, from the second request on.
    """

    kind: str
    model: str = ""
    system: str = ""
    prompt: str = ""
    messages: tuple[Any, ...] = ()
    body: dict[str, Any] = field(default_factory=dict, repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    index: int = 0
    occurrence: int = 0
    at: float = 0.0
    schema: dict[str, Any] | None = field(default=None, repr=False)
    prefix: str = field(default="", repr=False)
    cached: int = 0


def text_of_content(content: Any) -> str:
    """The text of a message's content, which may be a list of parts.

    Example:
        >>> text_of_content([{"text": "a"}, {"type": "image_url"}, {"text": "b"}])
        'a\\nb'
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(str(part["text"]) for part in content if isinstance(part, dict) and "text" in part)


def count_tokens(text: str) -> int:
    """A token for each four characters begun: near enough for English, and easy to check by hand.

    Example:
        >>> count_tokens("Hello, world")
        3
    """
    return (len(text) + 3) // 4
