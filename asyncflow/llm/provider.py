"""What `LLMClient` needs of a provider: a translation in both directions, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from asyncflow.llm.ask import Ask
from asyncflow.llm.completion import Completion, Usage


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event of a stream adds to the answer.

    Attributes:
        text: Text that follows what came before.
        finish_reason: Why the answer ends, where the event says so.
        usage: Tokens; each field counts where it is above what was known.
        model: The model that answers, where the event says so.
        error: A failure that the event tells of.
        end: Whether this is the stream's own end mark.
        refused: Whether its text says why the model does not answer.
    """

    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    model: str = ""
    error: Any = None
    end: bool = False
    refused: bool = False


class Provider(Protocol):
    """One provider's dialect. Pure: no network, no clock, no state.

    Attributes:
        name: What users call it.
        default_base_url: Where it lives; includes what its own SDK's `base_url` includes.
        key_variable, url_variable: Environment variables that its own SDK reads.
        embeddings_path: Where embeddings are asked for, below the base URL, or None.
        base_url_hint: How a base URL of this protocol looks, for the text of a 404.
    """

    name: str
    default_base_url: str
    key_variable: str
    url_variable: str
    embeddings_path: str | None
    base_url_hint: str

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

    def usage(self, answer: Any) -> Usage:
        """The tokens that an answer's JSON reports, whatever else is wrong with it."""

    def piece(self, event: str, data: Any) -> Piece:
        """What an event of a stream adds.

        Raises:
            UnusableAnswerError: If it is not an event of this protocol.
        """
