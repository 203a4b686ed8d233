"""`SimulatedProvider`: a model provider on loopback, for demos and for tests of your own flows."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from types import TracebackType
from typing import Any, TypeAlias

from aiohttp import web

from asyncflow.testing import chat
from asyncflow.testing.asked import Asked, count_tokens
from asyncflow.testing.server import Server
from asyncflow.testing.standin import stand_in

#: Takes what was asked, returns the text to answer with (or awaits it).
Reply: TypeAlias = Callable[[Asked], "str | Awaitable[str]"]

_CREDENTIALS = frozenset({"authorization", "x-api-key", "api-key", "cookie", "proxy-authorization"})


class SimulatedProvider:
    """A real HTTP server on 127.0.0.1 that speaks OpenAI's chat protocol. No model is asked.

    `async with` serves in the running event loop; `with` serves on a thread of its own, for synchronous
    code and for trio.

    Args:
        reply: Takes an `Asked`, returns the answer's text; plain or async. By default a stand-in by rules
            (`stand_in`), which marks translations and judges résumés, and says that it is one.
        latency: Median seconds before an answer; 0 answers at once. Latencies are log-normal.
        spread: How wide they vary: the standard deviation of their logarithm.
        seconds_per_token: Added for each token written.
        seed: Latencies depend on this, on the request's content, and on how often it came before, and on
            nothing else, so two runs of one program see the same ones in whatever order.
        log_size: How many requests `log` keeps, the newest.
        port: The port, or 0 for a free one.

    Attributes:
        log: What was asked (`Asked`), the newest last.

    Example:
        >>> import asyncio
        >>> from asyncflow.llm import LLMClient
        >>> async def main():
        ...     async with SimulatedProvider(reply=lambda asked: asked.prompt.upper(), latency=0) as provider:
        ...         async with LLMClient("any", base_url=provider.base_url, api_key="") as llm:
        ...             return (await llm.complete("hello")).text
        >>> asyncio.run(main())
        'HELLO'
    """

    def __init__(
        self,
        *,
        reply: Reply | None = None,
        latency: float = 0.05,
        spread: float = 0.4,
        seconds_per_token: float = 0.0,
        seed: int = 0,
        log_size: int = 10_000,
        port: int = 0,
    ) -> None:
        for name, value in (
            ("latency", latency),
            ("spread", spread),
            ("seconds_per_token", seconds_per_token),
        ):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"SimulatedProvider({name}={value!r}): a finite number from 0 is needed")
        self._reply: Reply = reply if reply is not None else stand_in
        self._latency = latency
        self._spread = spread
        self._seconds_per_token = seconds_per_token
        self._seed = seed
        self._port = port
        self._server = Server(self._application)
        self._seen: Counter[bytes] = Counter()
        self._index = 0
        self._running = 0
        self._opened = time.monotonic()
        self.log: deque[Asked] = deque(maxlen=log_size)

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as its base URL: it ends in `/v1`."""
        if not self._server.port:
            raise RuntimeError(
                "the provider is not open: use it as `async with SimulatedProvider() as provider`"
            )
        return f"http://127.0.0.1:{self._server.port}/v1"

    async def __aenter__(self) -> SimulatedProvider:
        self._opened = time.monotonic()
        await self._server.open(self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._server.aclose()

    def __enter__(self) -> SimulatedProvider:
        self._opened = time.monotonic()
        self._server.open_in_thread(self._port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._server.close_thread()

    def __repr__(self) -> str:
        place = f"127.0.0.1:{self._server.port}" if self._server.port else "not open"
        return f"<SimulatedProvider {place} asked={self._index} running={self._running}>"

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        try:
            asked = self._note(raw, request, chat.asked_of)
        except ValueError as exc:
            return _json(chat.error_body(str(exc), "invalid_request_error"), status=400)
        self._running += 1
        try:
            text = self._reply(asked)
            if inspect.isawaitable(text):
                text = await text
            await self._wait(asked, raw, text)
        finally:
            self._running -= 1
        return _json(chat.answer_to(asked, text), {"x-request-id": f"req-{self._seed}-{asked.index}"})

    def _note(self, raw: bytes, request: web.Request, read: Callable[..., Asked]) -> Asked:
        headers = {
            name.lower(): value for name, value in request.headers.items() if name.lower() not in _CREDENTIALS
        }
        digest = blake2b(raw, digest_size=16).digest()
        asked = read(
            json.loads(raw), headers, self._index, self._seen[digest], time.monotonic() - self._opened
        )
        self._seen[digest] += 1
        self._index += 1
        self.log.append(asked)
        return asked

    async def _wait(self, asked: Asked, raw: bytes, text: str) -> None:
        seconds = self.latency_of(raw, asked.occurrence) + self._seconds_per_token * count_tokens(text)
        if seconds:
            await asyncio.sleep(seconds)

    def latency_of(self, body: bytes, occurrence: int = 0) -> float:
        """Seconds before the answer to this request body, the n-th time it is sent.

        Example:
            >>> SimulatedProvider(latency=2, spread=0).latency_of(b"anything")
            2.0
        """
        if not self._latency:
            return 0.0
        source = b"%d|%d|" % (self._seed, occurrence) + blake2b(body, digest_size=16).digest()
        return self._latency * random.Random(source).lognormvariate(0.0, self._spread)


def _json(body: Any, headers: dict[str, str] | None = None, *, status: int = 200) -> web.Response:
    return web.Response(
        body=json.dumps(body).encode(), status=status, headers=headers, content_type="application/json"
    )
