"""httpx's Response for a body that is at hand: read and closed, at a fraction of the cost.

It is httpx's own type, and behaves so. Its request, which hardly anybody looks at, is made when it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

import httpx

from asyncflow.http.call import Call


class BodyTooLargeError(httpx.DecodingError):
    """The body, decompressed, was larger than asked for; the rest of it was not read."""


class BytesResponse(httpx.Response):
    """A response that has been read and closed; its body is decompressed."""

    def __init__(
        self,
        status_code: int,
        headers: Sequence[tuple[bytes, bytes]] | httpx.Headers,
        content: bytes,
        call: Call,
        reason: bytes,
    ) -> None:
        super().__init__(
            status_code,
            headers=headers,
            stream=httpx.ByteStream(content),
            extensions={"reason_phrase": reason},
        )
        self._bytes = content
        self._call = call
        self.is_closed = True
        self.is_stream_consumed = True

    @property
    def request(self) -> httpx.Request:
        if self._request is None:
            self._request = self._call.request()
        return self._request

    @request.setter
    def request(self, value: httpx.Request) -> None:
        self._request = value

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
