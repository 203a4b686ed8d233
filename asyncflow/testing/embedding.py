"""OpenAI's embeddings protocol, the server's side: vectors that depend on the text and nothing else."""

from __future__ import annotations

import base64
import math
import random
import struct
from collections.abc import Iterator
from typing import Any

from asyncflow.testing.asked import Asked, count_tokens
from asyncflow.testing.chat import Chat
from asyncflow.testing.dialect import BadRequestError
from asyncflow.testing.quota import Quotas
from asyncflow.testing.said import Said

_DIMENSIONS = 64


class Embedding:
    """`POST /v1/embeddings`."""

    path = "/v1/embeddings"

    def asked(self, body: Any) -> Asked:
        if not isinstance(body, dict) or not isinstance(body.get("model"), str):
            raise BadRequestError("you must provide a model parameter")
        texts = [body["input"]] if isinstance(body.get("input"), str) else body.get("input")
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise BadRequestError("'input' must be a text or a list of texts")
        return Asked("embeddings", body["model"], "", texts[0], tuple(texts), body)

    def tokens(self, asked: Asked, said: Said) -> tuple[int, int]:
        return sum(map(count_tokens, asked.messages)), 0

    def answer(self, asked: Asked, said: Said) -> dict[str, Any]:
        size = asked.body.get("dimensions") or _DIMENSIONS
        vectors: list[Any] = [vector_of(one, size) for one in asked.messages]
        if asked.body.get("encoding_format") == "base64":
            vectors = [base64.b64encode(struct.pack(f"<{size}f", *one)).decode() for one in vectors]
        read = self.tokens(asked, said)[0]
        return {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(vectors)
            ],
            "model": asked.model,
            "usage": {"prompt_tokens": read, "total_tokens": read},
        }

    def events(self, asked: Asked, said: Said) -> Iterator[bytes]:
        raise BadRequestError("embeddings are not streamed")

    def error(self, status: int, message: str, code: str | None) -> dict[str, Any]:
        return Chat().error(status, message, code)

    def error_event(self, status: int, message: str, code: str | None) -> bytes:
        return Chat().error_event(status, message, code)

    def headers(self, asked: Asked, quotas: Quotas) -> dict[str, str]:
        return Chat().headers(asked, quotas)


def vector_of(text: str, size: int) -> list[float]:
    """A vector of length 1 whose direction is random, but the same for the same text.

    Example:
        >>> vector_of("a", 8) == vector_of("a", 8) != vector_of("b", 8)
        True
    """
    rng = random.Random(text)
    values = [rng.gauss(0.0, 1.0) for _ in range(size)]
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return [value / length for value in values]
