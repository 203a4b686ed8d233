"""`Call`: one logical call before it is sent; `Target`: what many have in common; `Meter`: their tokens."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from asyncflow.http.timeouts import TOTAL, Timeouts


class Meter(Protocol):
    """Guesses what a call will use, and learns what calls have used."""

    def reserve(self, size_bytes: int) -> int:
        """Tokens to reserve for a request of this size."""

    def used(self, size_bytes: int, result: Any) -> int:
        """Tokens that the call with this result has used."""

    def lost(self, size_bytes: int) -> None:
        """An attempt was sent, and there is no answer to it: it may have to be paid for all the same."""

    async def again(self) -> None:
        """Before another attempt; may wait. What it raises ends the call."""


class Target:
    """A method, an address, and headers, which may serve any number of calls: nobody changes them.

    User and password in the address become the header that they stand for, so that no log holds them; an
    `Authorization` among the headers counts before them.

    Attributes:
        names: Of its headers, in small letters.
        head: The request line and these headers as they go over the wire, kept by whoever writes them first.
    """

    __slots__ = ("head", "headers", "method", "names", "url")

    def __init__(self, method: str, url: httpx.URL, headers: httpx.Headers) -> None:
        if url.userinfo:
            if "authorization" not in headers:
                named = b64encode(f"{url.username}:{url.password}".encode()).decode()
                headers = httpx.Headers({**headers, "authorization": f"Basic {named}"})
            url = url.copy_with(userinfo=b"")
        self.method = method
        self.url = url
        self.headers = headers
        self.names = frozenset(name.lower() for name, _ in headers.raw)
        self.head: bytes | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """What every attempt of one call has in common.

    Attributes:
        target, headers, content, timeouts: What goes over the wire, the headers besides the target's own, and
            how long it may take.
        repeatable: Whether the server may see it twice.
        keep_method: Whether a redirect that would turn it into a GET is an error.
        accept: Statuses that are no failure, besides the 2xx.
        redirected: Whether it follows a redirect, so that its headers are all that may be sent.
        meter: What it uses, for the lane; None where that does not count.
        advice: What to do about a status, for the texts of errors.
    """

    target: Target
    content: bytes = b""
    headers: Mapping[str, str] | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    repeatable: bool = False
    keep_method: bool = False
    accept: Container[int] = ()
    redirected: bool = False
    meter: Meter | None = None
    advice: Mapping[int, str] | None = None

    def reserve(self) -> int:
        """Tokens that it is expected to use, by now."""
        return 0 if self.meter is None else self.meter.reserve(len(self.content))

    def request(self) -> httpx.Request:
        """The same as httpx has it.

        Example:
            >>> target = Target("GET", httpx.URL("http://a.b"), httpx.Headers({"x": "1"}))
            >>> Call(target, headers={"y": "2"}).request().headers["y"]
            '2'
        """
        return httpx.Request(
            self.target.method,
            self.target.url,
            headers=self.all_headers(),
            content=self.content or None,
            extensions={"timeout": self.timeouts.as_httpx(), TOTAL: self.timeouts.total},
        )

    def all_headers(self) -> httpx.Headers:
        """The target's and its own."""
        if not self.headers:
            return self.target.headers
        headers = self.target.headers.copy()
        for name, value in self.headers.items():
            headers[name] = value
        return headers
