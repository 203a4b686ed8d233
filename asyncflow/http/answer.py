"""An answer that is wanted whole, made by aiohttp's parser of the bytes that come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aiohttp
from aiohttp.base_protocol import BaseProtocol
from aiohttp.hdrs import CONTENT_ENCODING, CONTENT_LENGTH
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpResponseParser, RawResponseMessage

from asyncflow.http.call import Call
from asyncflow.http.coding import Inflater, inflater_for
from asyncflow.http.messages import BodyTooLargeError, BytesResponse

#: As servers behind several proxies write them; aiohttp's own measure is a quarter of it.
LONGEST_LINE = 32768

_OF_THE_CODED = (b"content-encoding", b"content-length")


class Flow(BaseProtocol):
    """What the parser's bodies hold back when they are full: nothing, each piece is taken at once."""

    def pause_reading(self) -> None:
        pass

    def resume_reading(self, resume_parser: bool = True) -> None:
        pass


class Answer:
    """Takes the bytes of one answer, and knows when it is whole.

    Args:
        flow, loop: For aiohttp's parser.
        no_body: Whether only the head comes, as for HEAD.
        max_size_bytes: The largest body, decompressed.

    Attributes:
        head: The answer's, once it is there; those below 200 are passed over.
        is_whole: Whether nothing more belongs to it.
        is_last: Whether its connection must not be used again.
    """

    __slots__ = (
        "_inflater", "_max_size_bytes", "_no_body", "_parser", "_payload", "_pieces", "_size_bytes",
        "head", "is_last", "is_whole",
    )  # fmt: skip

    def __init__(
        self, flow: Flow, loop: asyncio.AbstractEventLoop, no_body: bool, max_size_bytes: int
    ) -> None:
        self._parser = HttpResponseParser(
            flow,
            loop,
            65536,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
            response_with_body=not no_body,
            read_until_eof=True,
            auto_decompress=False,
        )
        self._no_body = no_body
        self._max_size_bytes = max_size_bytes
        self._payload: aiohttp.StreamReader | None = None
        self._inflater: Inflater | None = None
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self.head: RawResponseMessage | None = None
        self.is_whole = self.is_last = False

    def feed(self, data: bytes) -> None:
        """More has come.

        Raises:
            aiohttp.ClientPayloadError: If it is not HTTP.
            httpx.DecodingError: If the body is not of the coding it is said to be.
            BodyTooLargeError: If the body is larger than it may be.
        """
        try:
            messages, upgraded, _ = self._parser.feed_data(data)
        except Exception as exc:  # the parser's own as a rule, and whatever else odd bytes do to it
            raise _not_http(exc) from exc
        for head, payload in messages:
            if self.head is not None:
                self.is_last = True  # another answer, which nobody asked for
            elif head.code >= 200 or head.code == 101:  # what comes before is only a sign of life
                self.is_last = upgraded or head.should_close
                self._begin(head, payload)
        if self._payload is not None:
            self._take(self._payload)

    def end(self) -> None:
        """Nothing more comes: a body whose length was not said is whole.

        Raises:
            aiohttp.ServerDisconnectedError: If there is no answer.
            aiohttp.ClientPayloadError: If more should have come.
        """
        if self._payload is None:
            raise aiohttp.ServerDisconnectedError
        self.is_last = True
        try:
            self._parser.feed_eof()
        except Exception as exc:
            raise _not_http(exc) from exc
        self._take(self._payload)

    def response(self, call: Call) -> BytesResponse:
        """What has come as a response; its headers are those that hold of the body as it is here."""
        head = self.head
        assert head is not None
        headers: Sequence[tuple[bytes, bytes]] = head.raw_headers
        if self._inflater is not None:
            headers = [pair for pair in headers if pair[0].lower() not in _OF_THE_CODED]
        content = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        return BytesResponse(
            head.code, headers, content, call, (head.reason or "").encode("latin-1", "replace")
        )

    def _begin(self, head: RawResponseMessage, payload: aiohttp.StreamReader) -> None:
        self.head = head
        self._payload = payload
        if self._no_body:
            return
        declared = head.headers.get(CONTENT_LENGTH)
        if declared is not None and int(declared) > self._max_size_bytes:
            raise BodyTooLargeError(f"the body is said to be {declared} bytes")
        coding = head.headers.get(CONTENT_ENCODING)
        if coding is not None:
            self._inflater = inflater_for(coding)

    def _take(self, payload: aiohttp.StreamReader) -> None:
        data = payload.read_nowait()
        if self._inflater is None:
            self._add(data)
        else:
            for piece in self._inflater.feed(data):
                self._add(piece)
        if not payload.is_eof():
            return
        if self._inflater is not None:
            self._inflater.end()
        self.is_whole = True
        self.is_last = self.is_last or self._is_followed()

    def _is_followed(self) -> bool:
        """Whether what came last begins another answer, which nobody asked for."""
        if self._no_body:  # aiohttp's older parsers go on to wait for the body of a HEAD
            return False
        try:
            return self._parser.feed_eof() is not None
        except Exception:
            return True

    def _add(self, piece: bytes) -> None:
        self._size_bytes += len(piece)
        if self._size_bytes > self._max_size_bytes:
            raise BodyTooLargeError(f"the body is more than {self._max_size_bytes} bytes")
        if piece:
            self._pieces.append(piece)


def _not_http(exc: Exception) -> aiohttp.ClientPayloadError:
    return aiohttp.ClientPayloadError(exc.message if isinstance(exc, HttpProcessingError) else repr(exc))
