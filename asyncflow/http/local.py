"""An httpx transport without a network: a function answers."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeAlias, TypeVar

import anyio
import httpx

from asyncflow import clock
from asyncflow.http.body import read_whole
from asyncflow.http.call import Call
from asyncflow.http.messages import BytesResponse
from asyncflow.http.timeouts import TOTAL

T = TypeVar("T")

#: Method, path, headers and body in; status, headers and body out. The body may come in pieces.
Answering: TypeAlias = Callable[[str, str, dict[str, str], bytes], Awaitable["Answered"]]
Answered: TypeAlias = "tuple[int, dict[str, str], bytes | AsyncGenerator[bytes, None]]"


class LocalTransport(httpx.AsyncBaseTransport):
    """Hands each request to a function in the same process.

    The request's read timeout and total count on asyncflow's clock, so they hold on virtual time too.

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
        asked = request.extensions.get("timeout") or {}
        read = asked.get("read") or math.inf
        total = request.extensions.get(TOTAL, math.inf)
        coming = self._answer(request.method, request.url.path, headers, await request.aread())
        status, given, body = await _in_time(coming, read, total)
        if isinstance(body, bytes) and "content-encoding" not in given:
            return httpx.Response(status, headers=given, content=body, request=request)
        stream = httpx.ByteStream(body) if isinstance(body, bytes) else _Pieces(body, read)
        return httpx.Response(status, headers=given, stream=stream, request=request)

    def direct(self, call: Call) -> LocalTransport:
        """The short way, which is as good for every call."""
        return self

    async def exchange(self, call: Call, max_size_bytes: int) -> httpx.Response:
        """The answer read whole, with no more of httpx's types than it takes."""
        target, timeouts = call.target, call.timeouts
        names = [(name.decode().lower(), value.decode()) for name, value in target.headers.raw]
        headers = {**dict(names), **{name.lower(): value for name, value in (call.headers or {}).items()}}
        coming = self._answer(target.method, target.url.path, headers, call.content)
        status, given, body = await _in_time(coming, timeouts.read, timeouts.total)
        if isinstance(body, bytes) and len(body) <= max_size_bytes and "content-encoding" not in given:
            reason = httpx.codes.get_reason_phrase(status).encode()
            lines = [(name.encode(), value.encode()) for name, value in given.items()]
            return BytesResponse(status, lines, body, call, reason)
        stream = httpx.ByteStream(body) if isinstance(body, bytes) else _Pieces(body, timeouts.read)
        response = httpx.Response(status, headers=given, stream=stream, request=call.request())
        return await read_whole(response, max_size_bytes, clock.now() + timeouts.total)


async def _in_time(work: Awaitable[Answered], read: float, total: float) -> Answered:
    """The work's result; in httpx's words where there is none."""
    try:
        return await _within(min(read, total), work)
    except TimeoutError as exc:
        late = httpx.ReadTimeout if read <= total else httpx.TimeoutException
        raise late(str(exc)) from exc
    except ConnectionError as exc:
        raise httpx.ReadError(str(exc)) from exc


async def _within(seconds: float, work: Awaitable[T]) -> T:
    """The work's result, if it is there in so many seconds of the current clock.

    Raises:
        TimeoutError: If it is not.
    """
    if seconds == math.inf:
        return await work
    with anyio.CancelScope() as scope:
        end = clock.current().call_later(seconds, scope.cancel)
        try:
            return await work
        finally:
            end()
    raise TimeoutError(f"no answer within {seconds:g} s")


class _Pieces(httpx.AsyncByteStream):
    def __init__(self, pieces: AsyncGenerator[bytes, None], read: float) -> None:
        self._pieces = pieces
        self._read = read

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await _within(self._read, anext(self._pieces))
        except TimeoutError as exc:
            raise httpx.ReadTimeout(str(exc)) from exc
        except ConnectionError as exc:
            raise httpx.ReadError(str(exc)) from exc

    async def aclose(self) -> None:
        await self._pieces.aclose()
