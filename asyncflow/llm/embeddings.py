"""Embeddings, in OpenAI's protocol: a pure translation.

Source: https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asyncflow.errors import AsyncflowError
from asyncflow.http import UnusableAnswerError
from asyncflow.llm.completion import Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """Vectors of several texts.

    Attributes:
        vectors: One row per text, in the order of the texts, float32, shape (n, depth).
        usage: Tokens of all requests together.
        cost: In the currency of the client's `price`, or None as in a `Completion`.
        model: The model that answered.
    """

    vectors: NDArray[np.float32] = field(repr=False)
    usage: Usage
    cost: float | None = None
    model: str = ""


def body_of(
    model: str, texts: Sequence[str], dimensions: int | None, extra: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The request's JSON. Base64 halves what travels; servers that do not know it send numbers."""
    body: dict[str, Any] = {"model": model, "input": list(texts), "encoding_format": "base64"}
    if dimensions is not None:
        body["dimensions"] = dimensions
    if extra:
        body.update(extra)
    return body


async def in_batches(
    texts: Sequence[str], size: int, embed: Callable[[Sequence[str]], Awaitable[Embeddings]]
) -> Embeddings:
    """The vectors of all texts, `size` of them at a time, one batch after the other.

    Raises:
        Exception: What `embed` raises. It is told which texts it is about, and takes what is done along.
    """
    parts: list[Embeddings] = []
    for start in range(0, len(texts), size):
        batch = texts[start : start + size]
        try:
            parts.append(await embed(batch))
        except Exception as exc:
            if len(texts) > size:
                exc.add_note(f"in texts {start} to {start + len(batch) - 1} of {len(texts)}, counted from 0")
            if parts and isinstance(exc, AsyncflowError):
                exc.partial = joined(parts)
            raise
    return joined(parts)


def joined(parts: Sequence[Embeddings]) -> Embeddings:
    """Several answers as one, in their order."""
    import numpy as np

    usage = Usage()
    for part in parts:
        usage += part.usage
    costs = [part.cost for part in parts if part.cost is not None]
    cost = sum(costs) if costs else None
    return Embeddings(np.concatenate([part.vectors for part in parts]), usage, cost, parts[-1].model)


def vectors_of(answer: Any, count: int) -> NDArray[np.float32]:
    """The vectors in an answer, in the order of the texts.

    Raises:
        UnusableAnswerError: If there are not exactly `count` of one length, all of finite numbers.
    """
    import numpy as np

    rows = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(rows, list) or len(rows) != count:
        found = len(rows) if isinstance(rows, list) else "no"
        raise UnusableAnswerError(f"{count} texts were sent and {found} embeddings came back")
    vectors: list[Any] = [None] * count
    for place, row in enumerate(rows):
        value = row.get("embedding") if isinstance(row, dict) else None
        index = row.get("index", place) if isinstance(row, dict) else place
        if not isinstance(index, int) or not 0 <= index < count or vectors[index] is not None:
            raise UnusableAnswerError("the embeddings are not numbered as the texts are")
        try:
            if isinstance(value, str):
                vectors[index] = np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4")
            else:
                with np.errstate(over="ignore"):  # it becomes an infinity, which is refused below
                    vectors[index] = np.asarray(value, dtype=np.float32)
        except (ValueError, TypeError, binascii.Error):
            raise UnusableAnswerError("an embedding is neither numbers nor base64") from None
    shapes = {vector.shape for vector in vectors}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1 or not next(iter(shapes))[0]:
        raise UnusableAnswerError("the embeddings are not vectors of one length")
    whole = np.stack(vectors)
    if not np.isfinite(whole).all():
        raise UnusableAnswerError("an embedding holds NaN or an infinity")
    return whole
