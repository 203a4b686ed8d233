"""What a simulated provider answers: a text, or calls of tools, before any protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from asyncflow.llm.completion import ToolCall
from asyncflow.testing.asked import count_tokens

#: What a `reply` may return: the text, or the tools that the model wants called.
Reply: TypeAlias = "str | ToolCall | Sequence[ToolCall]"
Replied: TypeAlias = "Reply | Awaitable[Reply]"


@dataclass(frozen=True, slots=True)
class Said:
    """One answer.

    Attributes:
        text: What the model writes.
        tool_calls: Tools that it wants called.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()

    @classmethod
    def of(cls, reply: Any) -> Said:
        """The answer that a `reply` function has returned.

        Raises:
            TypeError: If it is none.

        Example:
            >>> Said.of("Hi").tokens
            1
        """
        if isinstance(reply, str):
            return cls(reply)
        calls = (reply,) if isinstance(reply, ToolCall) else reply
        if isinstance(calls, (list, tuple)) and calls and all(isinstance(one, ToolCall) for one in calls):
            return cls("", tuple(calls))
        raise TypeError(f"a reply is a text, a ToolCall or a list of them, not {reply!r:.100}")

    @property
    def tokens(self) -> int:
        """Tokens written."""
        return count_tokens(self.text) + sum(
            count_tokens(call.name) + count_tokens(call.arguments) for call in self.tool_calls
        )

    def cut(self, max_tokens: Any) -> tuple[Said, str]:
        """The answer as far as `max_tokens` allows, and why it ends there. Calls of tools are never cut.

        Example:
            >>> Said("Hello, world").cut(2)
            (Said(text='Hello, w', tool_calls=()), 'length')
        """
        if self.tool_calls:
            return self, "tool_calls"
        if isinstance(max_tokens, int) and self.tokens > max_tokens:
            return replace(self, text=self.text[: 4 * max(0, max_tokens)]), "length"
        return self, "stop"
