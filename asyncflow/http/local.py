"""An httpx transport without a network: a function answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import httpx

#: Method, path, headers and body in; status, headers and body out. The body may come in pieces.
Answering: TypeAlias = Callable[[str, str, dict[str, str], bytes], Awaitable["Answered"]]
Answered: TypeAlias = "tuple[int, dict[str, str], bytes | AsyncGenerator[bytes, None]]"


class LocalTransport(httpx.AsyncBaseTransport):
    """Hands each request to a function in the same process.

    Args:
        answer: What answers. A ConnectionError from it is a broken connection, a TimeoutError an answer
            that did not come in time; so for pieces of a body.

    Example:
        >>> async def answer(method, path, headers, body):
        ...     return 200, {"content-type": "text/plain"}, path.encode()
        >>> async def ask():
        ...     async with httpx.AsyncClient(transport=LocalTransport(answer)) as client:
        ...         return (await client.get("http://any/where")).text
        >>> import asyncio
        >>> asyncio.run(ask())
        '/where'
    """

    def __init__(self, answer: Answering) -> None:
        self._answer = answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The function's answer to one request."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            status, given, body = await self._answer(
                request.method, request.url.path, headers, await request.aread()
            )
        except TimeoutError as exc:
            raise httpx.ReadTimeout(str(exc)) from exc
        except ConnectionError as exc:
            raise httpx.ReadError(str(exc)) from exc
        stream = httpx.ByteStream(body) if isinstance(body, bytes) else _Pieces(body)
        return httpx.Response(status, headers=given, stream=stream, request=request)


class _Pieces(httpx.AsyncByteStream):
    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._pieces:
                yield piece
        except TimeoutError as exc:
            raise httpx.ReadTimeout(str(exc)) from exc
        except ConnectionError as exc:
            raise httpx.ReadError(str(exc)) from exc

    async def aclose(self) -> None:
        await self._pieces.aclose()
