"""What `LLMClient` needs of a provider: a translation in both directions, and nothing else."""

from __future__ import annotations

from typing import Any, Protocol

from asyncflow.llm.ask import Ask
from asyncflow.llm.completion import Completion


class Provider(Protocol):
    """One provider's dialect. Pure: no network, no clock, no state.

    Attributes:
        name: What users call it.
        default_base_url: Where it lives; includes what its own SDK's `base_url` includes.
        key_variable, url_variable: Environment variables that its own SDK reads.
    """

    name: str
    default_base_url: str
    key_variable: str
    url_variable: str

    def headers(self, api_key: str) -> dict[str, str]:
        """Headers that carry the key and the protocol's version; an empty key sends none."""

    def path(self) -> str:
        """Where completions are asked for, below the base URL."""

    def body(self, ask: Ask, base_url: str) -> dict[str, Any]:
        """The request's JSON."""

    def completion(self, answer: Any, request_id: str | None = None) -> Completion:
        """The answer's JSON as a `Completion`.

        Raises:
            UnusableAnswerError: If it lacks what an answer must have.
        """
