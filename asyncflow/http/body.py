"""Bodies: encoding what is sent, and reading an answer that has a largest size."""

from __future__ import annotations

import json
import math
from contextlib import aclosing
from typing import Any

import anyio
import httpx

from asyncflow import clock
from asyncflow.http.coding import decoded
from asyncflow.http.messages import BodyTooLargeError

_compact = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_escaped = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode


def encode_json(value: Any) -> bytes:
    """The value as compact JSON in UTF-8.

    Raises:
        ValueError: If it holds NaN or an infinity, which JSON does not know.
        TypeError: If it holds something that is not JSON.

    Example:
        >>> encode_json({"a": "é"})
        b'{"a":"\\xc3\\xa9"}'
    """
    try:
        return _compact(value).encode()
    except UnicodeEncodeError:  # half a surrogate pair: legal in a JSON escape, not in UTF-8
        return _escaped(value).encode()


async def read_whole(
    response: httpx.Response, max_size_bytes: int, deadline: float = math.inf
) -> httpx.Response:
    """A response of the same content that has been read and closed.

    Args:
        response: What to read.
        max_size_bytes: The largest body.
        deadline: When it must be read, on asyncflow's clock.

    Raises:
        BodyTooLargeError: If the body, decompressed, is larger; the rest stays unread.
        httpx.TimeoutException: If it takes longer.
    """
    if response.is_stream_consumed:  # read already, by its transport or by a hook of its client
        if len(response.content) > max_size_bytes:
            raise BodyTooLargeError(f"the body is more than {max_size_bytes} bytes")
        await response.aclose()
        return response
    left = max(0.0, deadline - clock.now()) if deadline < math.inf else None
    try:
        with anyio.fail_after(left):
            content = await _content(response, max_size_bytes)
    except TimeoutError as exc:
        raise httpx.TimeoutException("total") from exc
    finally:
        await response.aclose()
    headers = response.headers.copy()
    for name in ("content-encoding", "content-length", "transfer-encoding"):
        headers.pop(name, None)
    return httpx.Response(
        response.status_code,
        headers=headers,
        content=content,
        request=response.request,
        extensions={"reason_phrase": response.reason_phrase.encode("ascii", "replace")},
    )


async def _content(response: httpx.Response, max_size_bytes: int) -> bytes:
    declared = "" if response.request.method == "HEAD" else response.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_size_bytes:
        raise BodyTooLargeError(f"the body is said to be {declared} bytes")
    pieces, size = [], 0
    async with aclosing(decoded(response)) as body:
        async for piece in body:
            size += len(piece)
            if size > max_size_bytes:
                raise BodyTooLargeError(f"the body is more than {max_size_bytes} bytes")
            pieces.append(piece)
    return b"".join(pieces)
