"""httpx's Request and Response for bodies that are bytes already, at a fraction of the cost.

httpx prepares headers, streams and decoders that nobody uses when the whole body is at hand; on a fast local
server that preparation costs as much as sending the request. These are httpx's own types, and behave so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import httpx


class BytesRequest(httpx.Request):
    """A request whose body is bytes. Host and Content-Length are left to the transport."""

    def __init__(
        self,
        method: str,
        url: httpx.URL,
        headers: httpx.Headers,
        content: bytes,
        extensions: Mapping[str, object],
    ) -> None:
        super().__init__(
            method, url, headers=headers, stream=httpx.ByteStream(content), extensions=dict(extensions)
        )
        self._bytes = content

    @property
    def content(self) -> bytes:
        return self._bytes

    def read(self) -> bytes:
        return self._bytes

    async def aread(self) -> bytes:
        return self._bytes


class BytesResponse(httpx.Response):
    """A response whose body is at hand, decompressed. `content` needs no `read()` first."""

    def __init__(
        self,
        status_code: int,
        headers: Sequence[tuple[bytes, bytes]] | httpx.Headers,
        content: bytes,
        request: httpx.Request,
        reason: bytes,
    ) -> None:
        super().__init__(
            status_code,
            headers=headers,
            stream=httpx.ByteStream(content),
            request=request,
            extensions={"reason_phrase": reason},
        )
        self._bytes = content

    @property
    def content(self) -> bytes:
        return self._bytes
