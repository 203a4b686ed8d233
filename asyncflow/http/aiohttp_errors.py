"""aiohttp's errors as httpx's, once, at the border."""

from __future__ import annotations

import asyncio
import os

import aiohttp
import httpx

from asyncflow.http.upload import WriteStalledError

#: First match wins, so narrower classes stand above wider ones.
_TABLE: tuple[tuple[type[BaseException], type[httpx.RequestError]], ...] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.SocketTimeoutError, httpx.ReadTimeout),
    (WriteStalledError, httpx.WriteTimeout),
    (asyncio.TimeoutError, httpx.TimeoutException),  # the total; httpx has no class of its own for it
    (aiohttp.ClientHttpProxyError, httpx.ProxyError),
    (aiohttp.ClientProxyConnectionError, httpx.ProxyError),
    (aiohttp.ClientConnectorError, httpx.ConnectError),  # refused, no such name, TLS refused
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    (aiohttp.ClientPayloadError, httpx.RemoteProtocolError),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError),  # not HTTP, or headers past all measure
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
    (aiohttp.NonHttpUrlClientError, httpx.UnsupportedProtocol),
    (OSError, httpx.ReadError),
)

#: Those of aiohttp's errors whose text holds the whole address.
_WITH_ADDRESS = (aiohttp.ClientResponseError, aiohttp.InvalidURL)


def as_httpx(exc: BaseException) -> Exception:
    """The httpx error that says the same.

    Example:
        >>> as_httpx(aiohttp.ServerDisconnectedError())
        RemoteProtocolError('Server disconnected')
    """
    for kind, ours in _TABLE:
        if isinstance(exc, kind):
            return ours(_said(exc) or type(exc).__name__)
    if isinstance(exc, aiohttp.ClientError):
        return httpx.NetworkError(str(exc) or type(exc).__name__)
    assert isinstance(exc, Exception)
    return exc


def cause_of(exc: BaseException) -> BaseException | None:
    """What to raise `as_httpx(exc)` from: never an error whose text holds an address.

    Example:
        >>> cause_of(aiohttp.InvalidURL("http://me:secret@a.b")) is None
        True
    """
    return exc.__cause__ if isinstance(exc, _WITH_ADDRESS) else exc


def _said(exc: BaseException) -> str:
    """Its text without the address, which may hold a key, or a proxy's password."""
    if isinstance(exc, aiohttp.ClientResponseError):
        return f"{exc.status} {exc.message}"
    if isinstance(exc, aiohttp.InvalidURL):
        return exc.description or ""
    if isinstance(exc, aiohttp.ClientConnectorError) and not isinstance(exc, aiohttp.ClientSSLError):
        return f"{exc.host}:{exc.port}: {_reason(exc.os_error)}"
    return str(exc)


def _reason(exc: OSError) -> str:
    """Why there was no connection, as the system words it; asyncio says only that it tried."""
    if isinstance(exc, ConnectionError) and exc.errno is not None:
        return os.strerror(exc.errno)
    return exc.strerror or str(exc)


def forget_addresses(exc: BaseException, connector: aiohttp.BaseConnector | None) -> None:
    """Where no connection came about, have the next attempt look its name up anew: it may have moved."""
    unreachable = isinstance(exc, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError))
    if unreachable and isinstance(connector, aiohttp.TCPConnector):
        connector.clear_dns_cache()
