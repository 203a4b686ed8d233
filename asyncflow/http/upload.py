"""A large body on its way out through aiohttp: in pieces, each of which has to be taken in time."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import payload
from aiohttp.abc import AbstractStreamWriter

#: Bodies up to this size go out in one write, which the attempt's total bounds.
PIECE_BYTES = 64 * 1024


class WriteStalledError(TimeoutError):
    """The other side took nothing for as long as `write` allows."""


class Upload(payload.Payload):
    """Bytes that are written piece by piece.

    Args:
        value: The body.
        timeout: Seconds in which each piece must be taken, or None.
    """

    _value: bytes

    def __init__(self, value: bytes, timeout: float | None) -> None:
        super().__init__(value)
        self._size = len(value)
        self._timeout = timeout

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._value.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        view = memoryview(self._value)[:content_length]
        for start in range(0, len(view), PIECE_BYTES):
            try:
                async with asyncio.timeout(self._timeout):
                    await writer.write(view[start : start + PIECE_BYTES])
            except TimeoutError:
                raise WriteStalledError from None

    async def as_bytes(self, *_: Any) -> bytes:
        return self._value
