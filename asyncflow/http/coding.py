"""Content codings undone piece by piece: gzip and deflate, which are what is asked for.

httpx and aiohttp take a gzip body that is cut short for whole. What is decompressed here must come to its
end, and comes in pieces of a bounded size: a small body cannot become a huge one before anybody counts.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import cast

import httpx

#: Bytes that one piece holds at most.
_PIECE = 1 << 18
#: Members of one gzip body. One after the other is allowed; thousands of empty ones only cost time.
_MEMBERS = 1000

#: What is undone here. Anything else comes as it was sent, and says so.
CODINGS = frozenset({"gzip", "deflate"})


class Inflater:
    """Undoes one coding of one body.

    Args:
        coding: `"gzip"`, or `"deflate"`: with the header that belongs to it, or without, as some send it.

    Example:
        >>> import gzip
        >>> inflater = Inflater("gzip")
        >>> data = gzip.compress(b"word " * 3)
        >>> b"".join([*inflater.feed(data[:9]), *inflater.feed(data[9:])])
        b'word word word '
        >>> inflater.end()
    """

    __slots__ = ("_coding", "_members", "_one")

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._one: zlib._Decompress | None = None  # until there is data
        self._members = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What more of the body gives, in pieces of at most 256 KiB.

        Raises:
            httpx.DecodingError: If it is not of this coding.
        """
        while data and self._goes_on(data):
            one = self._one
            if one is None or one.eof:
                one = self._one = self._begun(data)
            try:
                piece = one.decompress(data, _PIECE)
                while piece:
                    yield piece
                    piece = one.decompress(one.unconsumed_tail, _PIECE)
            except zlib.error as exc:
                raise httpx.DecodingError(f"not {self._coding}: {exc}") from exc
            data = one.unused_data

    def end(self) -> None:
        """The body is over.

        Raises:
            httpx.RemoteProtocolError: If more should have come.
        """
        if self._one is not None and not self._one.eof:
            raise httpx.RemoteProtocolError(f"the {self._coding} body ends before its end")

    def _goes_on(self, data: bytes) -> bool:
        """Whether this belongs to the body: after its end only another member does, the rest is padding."""
        if self._one is None or not self._one.eof:
            return True
        return self._coding == "gzip" and data[0] == 0x1F

    def _begun(self, data: bytes) -> zlib._Decompress:
        self._members += 1
        if self._members > _MEMBERS:
            raise httpx.DecodingError(f"more than {_MEMBERS} {self._coding} members")
        if self._coding == "gzip":
            return zlib.decompressobj(16 + zlib.MAX_WBITS)
        return zlib.decompressobj(zlib.MAX_WBITS if data[0] & 0xF == 8 else -zlib.MAX_WBITS)


def inflater_for(coding: str) -> Inflater | None:
    """What undoes a coding, as a header names it, or None where there is nothing to undo here.

    Example:
        >>> inflater_for("br") is None
        True
    """
    coding = coding.strip().lower()
    return Inflater(coding) if coding in CODINGS else None


async def decoded(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The pieces of an open answer's body, decompressed. Closed early, it leaves no generator behind.

    Raises:
        httpx.HTTPError: If it breaks, ends before its end, or is not of the coding it is said to be.
    """
    coding = response.headers.get("content-encoding", "")
    inflater = inflater_for(coding)
    if response.is_stream_consumed:  # read, and so decompressed, by a hook of its client
        coding, inflater = "read", None
    found = response.aiter_bytes() if coding and inflater is None else response.aiter_raw()
    async with aclosing(cast("AsyncGenerator[bytes, None]", found)) as pieces:
        async for data in pieces:
            if inflater is None:
                yield data
            else:
                for piece in inflater.feed(data):
                    yield piece
    if inflater is not None:
        inflater.end()
