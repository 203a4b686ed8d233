"""`SimulatedProvider`: a model provider on loopback, for demos and for tests of your own flows."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from hashlib import blake2b
from types import TracebackType

from aiohttp import web

from asyncflow import clock
from asyncflow.http import LocalTransport
from asyncflow.testing.asked import Asked
from asyncflow.testing.chat import Chat
from asyncflow.testing.core import Core, Prepared, ProviderStatistics, Reply
from asyncflow.testing.dialect import Dialect
from asyncflow.testing.embedding import Embedding
from asyncflow.testing.faults import Fault, FaultPlan, play
from asyncflow.testing.local import local_transport
from asyncflow.testing.messages import Messages
from asyncflow.testing.quota import Quotas
from asyncflow.testing.server import Server
from asyncflow.testing.standin import stand_in


class SimulatedProvider:
    """A real HTTP server on 127.0.0.1 that speaks OpenAI's and Anthropic's protocols. No model is asked.

    Chat completions, embeddings and messages, chat and messages also streamed. `async with` serves in the
    running event loop; `with` serves on a thread of its own, for synchronous code and for trio.

    Args:
        reply: Takes an `Asked`, returns the answer's text, or a `ToolCall` (or several) that the model is to
            want; plain or async. What it raises becomes status 500. By default a stand-in by rules
            (`stand_in`): JSON where a schema was asked for, marked text for translations, judgements of
            résumés, and otherwise a text that says that no model was asked.
        latency: Median seconds before an answer; 0 answers at once. Latencies are log-normal.
        spread: How wide they vary: the standard deviation of their logarithm.
        seconds_per_token: Added for each token written; when streaming, the time between two pieces.
        requests_per_minute, tokens_per_minute: Quotas; past them 429, with the wait in `retry-after-ms` and
            `Retry-After`. What is left is in each answer's rate-limit headers, in its protocol's spelling.
            Tokens are charged as they are used, not by `max_tokens`.
        input_tokens_per_minute, output_tokens_per_minute: Quotas of tokens read, and of tokens written, as
            Anthropic has them. What a system text's blocks with `cache_control` hold is read from the prompt
            cache from the second request on, and then does not count in the first.
        burst: Seconds' worth of quota that may be used at once.
        concurrency_limit: A limit at once that no header tells of; past it 429, without a wait.
        slope_limit: How many times as many requests a second may bring as the one before it (ten are always
            let through); past it 429, without a wait.
        faults: Share of requests per fault: a status, or a kind (see `asyncflow.testing.faults.KINDS`).
        script: Faults of the first requests, in the order they come; None leaves one alone.
        seed: Latencies and faults depend on this, on the request's content, and on how often it came
            before, and on nothing else, so two runs of one program see the same ones in whatever order.
        log_size: How many requests `log` keeps, the newest.
        port: The port, or 0 for a free one.

    `transport()` reaches the same provider without a socket, on asyncflow's clock.

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
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        input_tokens_per_minute: float | None = None,
        output_tokens_per_minute: float | None = None,
        burst: float = 60.0,
        concurrency_limit: int | None = None,
        slope_limit: float | None = None,
        faults: Mapping[Fault, float] | None = None,
        script: Iterable[Fault | None] = (),
        seed: int = 0,
        log_size: int = 10_000,
        port: int = 0,
    ) -> None:
        if not (reply is None or callable(reply)):
            raise TypeError(f"reply={reply!r:.100}: give a function, such as lambda asked: {reply!r:.100}")
        for name, value in (
            ("latency", latency),
            ("spread", spread),
            ("seconds_per_token", seconds_per_token),
        ):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"SimulatedProvider({name}={value!r}): a finite number from 0 is needed")
        quotas = Quotas(
            clock.now,
            burst,
            requests=requests_per_minute,
            tokens=tokens_per_minute,
            input_tokens=input_tokens_per_minute,
            output_tokens=output_tokens_per_minute,
            at_once=concurrency_limit,
            slope=slope_limit,
        )
        plan = FaultPlan(faults or {}, script, seed)
        self._core = Core(
            reply if reply is not None else stand_in,
            latency,
            spread,
            seconds_per_token,
            seed,
            quotas,
            plan,
            log_size,
        )
        self._port = port
        self._dialects: dict[str, Dialect] = {one.path: one for one in (Chat(), Messages(), Embedding())}
        self._server = Server(self._application)

    @property
    def log(self) -> deque[Asked]:
        """What was asked, the newest last; refused and faulty requests too."""
        return self._core.log

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as its base URL: it ends in `/v1`."""
        return f"{self.anthropic_base_url}/v1"

    @property
    def anthropic_base_url(self) -> str:
        """What an Anthropic client takes as its base URL: without `/v1`."""
        if not self._server.port:
            raise RuntimeError(
                "the provider is not open: use it as `async with SimulatedProvider() as provider`"
            )
        return f"http://127.0.0.1:{self._server.port}"

    def transport(self) -> LocalTransport:
        """An httpx transport that reaches this provider without a socket; it need not be open.

        Latencies and quotas run on asyncflow's clock, so inside `with FakeClock()` an hour passes in moments.
        Make the provider there too: its quotas start when it is made. Give it to
        `LLMClient(http=…)`, as it is or in an `httpx.AsyncClient(transport=…)`, with any `base_url`.
        """
        return local_transport(self._core, self._dialects)

    def latency_of(self, body: bytes, occurrence: int = 0) -> float:
        """Seconds before the answer to this request body, the n-th time it is sent.

        Example:
            >>> SimulatedProvider(latency=2, spread=0).latency_of(b"anything")
            2.0
        """
        return self._core.draw(blake2b(body, digest_size=16).digest(), occurrence)

    def statistics(self) -> ProviderStatistics:
        """What the provider has seen so far."""
        return self._core.statistics()

    async def __aenter__(self) -> SimulatedProvider:
        if clock.in_trio():
            raise RuntimeError("SimulatedProvider serves on asyncio: on trio write `with`, not `async with`")
        self._core.opened = clock.now()
        await self._server.open(self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._server.aclose()

    def __enter__(self) -> SimulatedProvider:
        self._core.opened = clock.now()
        self._server.open_in_thread(self._port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._server.close_thread()

    def __repr__(self) -> str:
        place = f"127.0.0.1:{self._server.port}" if self._server.port else "not open"
        return f"<SimulatedProvider {place} asked={self._core.asked} running={self._core.running}>"

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        for dialect in self._dialects.values():
            app.router.add_post(dialect.path, self._handler(dialect))
        return app

    def _handler(self, dialect: Dialect) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            headers = {name.lower(): value for name, value in request.headers.items()}
            try:
                async with self._core.exchange(dialect, await request.read(), headers) as prepared:
                    return await self._send(prepared, request)
            except ConnectionError:
                return web.Response()  # the client has gone: nobody hears this

        return handle

    async def _send(self, prepared: Prepared, request: web.Request) -> web.StreamResponse:
        if prepared.fault is not None:
            return await play(prepared.fault, request, prepared.body)
        if not prepared.events:
            return web.Response(body=prepared.body, status=prepared.status, headers=prepared.headers)
        response = web.StreamResponse(headers=prepared.headers)
        await response.prepare(request)
        await response.write(b": keep-alive\n\n")
        for event in prepared.events:
            await response.write(event)
            if self._core.seconds_per_token:
                await clock.sleep(self._core.seconds_per_token)
        if prepared.after == "stall":
            await asyncio.Event().wait()
        if prepared.after == "cut" and request.transport is not None:
            request.transport.close()
        return response
