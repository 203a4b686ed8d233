"""Bodies: encoding what is sent, and reading an answer that has a largest size."""

from __future__ import annotations

import json
from typing import Any

import httpx

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


async def read_whole(response: httpx.Response, max_size_bytes: int) -> httpx.Response:
    """A response of the same content that has been read and closed.

    Raises:
        BodyTooLargeError: If the body, decompressed, is larger; the rest stays unread.
    """
    try:
        declared = "" if response.request.method == "HEAD" else response.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > max_size_bytes:
            raise BodyTooLargeError(f"the body is said to be {declared} bytes")
        pieces, size = [], 0
        async for piece in response.aiter_bytes():
            size += len(piece)
            if size > max_size_bytes:
                raise BodyTooLargeError(f"the body is more than {max_size_bytes} bytes")
            pieces.append(piece)
    finally:
        await response.aclose()
    headers = response.headers.copy()
    for name in ("content-encoding", "content-length", "transfer-encoding"):
        headers.pop(name, None)
    return httpx.Response(
        response.status_code,
        headers=headers,
        content=b"".join(pieces),
        request=response.request,
        extensions={"reason_phrase": response.reason_phrase.encode("ascii", "replace")},
    )
