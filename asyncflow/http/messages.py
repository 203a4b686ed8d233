"""httpx's Request and Response for bodies that are bytes already, at a fraction of the cost.

httpx prepares headers, streams and decoders that nobody uses when the whole body is at hand; on a fast local
server that preparation costs as much as sending the request. These are httpx's own types, and behave so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

import httpx


class BodyTooLargeError(httpx.DecodingError):
    """The body, decompressed, was larger than asked for; the rest of it was not read."""


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
    """A response that has been read and closed; its body is decompressed."""

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
        self.is_closed = True
        self.is_stream_consumed = True

    @property
    def content(self) -> bytes:
        return self._bytes

    def read(self) -> bytes:
        return self._bytes

    async def aread(self) -> bytes:
        return self._bytes

    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        step = chunk_size or max(1, len(self._bytes))
        for start in range(0, len(self._bytes), step):
            yield self._bytes[start : start + step]

    async def aiter_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        for piece in self.iter_bytes(chunk_size):
            yield piece
