"""`SimulatedProvider`: a model provider on loopback, for demos and for tests of your own flows."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from types import TracebackType
from typing import Any, TypeAlias

from aiohttp import web

from asyncflow.testing.asked import Asked, count_tokens
from asyncflow.testing.chat import Chat
from asyncflow.testing.dialect import BadRequestError, Dialect
from asyncflow.testing.embedding import Embedding
from asyncflow.testing.faults import Fault, FaultPlan, play
from asyncflow.testing.messages import Messages
from asyncflow.testing.quota import Quotas, Refusal
from asyncflow.testing.server import Server
from asyncflow.testing.standin import stand_in

#: Takes what was asked, returns the text to answer with (or awaits it).
Reply: TypeAlias = Callable[[Asked], "str | Awaitable[str]"]

_CREDENTIALS = frozenset({"authorization", "x-api-key", "api-key", "cookie", "proxy-authorization"})


@dataclass(frozen=True, slots=True)
class ProviderStatistics:
    """What a provider has seen so far: all counts are of requests.

    Attributes:
        asked: That came in and could be read.
        answered: That got their answer, whole.
        refused: By reason: `"requests"`, `"tokens"`, `"concurrency"`.
        faults: By fault.
        running: Under way now.
        most_at_once: The most that were under way at the same time, refused ones not counted.
        tokens: Read and written by answered ones.
    """

    asked: int = 0
    answered: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    faults: dict[Fault, int] = field(default_factory=dict)
    running: int = 0
    most_at_once: int = 0
    tokens: int = 0


class SimulatedProvider:
    """A real HTTP server on 127.0.0.1 that speaks OpenAI's and Anthropic's protocols. No model is asked.

    Chat completions, embeddings and messages, chat and messages also streamed. `async with` serves in the
    running event loop; `with` serves on a thread of its own, for synchronous code and for trio.

    Args:
        reply: Takes an `Asked`, returns the answer's text; plain or async. By default a stand-in by rules
            (`stand_in`): JSON where a schema was asked for, marked text for translations, judgements of
            résumés, and otherwise a text that says that no model was asked.
        latency: Median seconds before an answer; 0 answers at once. Latencies are log-normal.
        spread: How wide they vary: the standard deviation of their logarithm.
        seconds_per_token: Added for each token written; when streaming, the time between two pieces.
        requests_per_minute, tokens_per_minute: Quotas; past them 429, with the wait in `retry-after-ms` and
            `Retry-After`. What is left is in each answer's rate-limit headers, in its protocol's spelling.
            Tokens are charged as they are used, not by `max_tokens`.
        burst: Seconds' worth of quota that may be used at once.
        concurrency_limit: A limit at once that no header tells of; past it 429, without a wait.
        faults: Share of requests per fault: a status, or a kind (see `asyncflow.testing.faults.KINDS`).
        script: Faults of the first requests, in the order they come; None leaves one alone.
        seed: Latencies and faults depend on this, on the request's content, and on how often it came
            before, and on nothing else, so two runs of one program see the same ones in whatever order.
        log_size: How many requests `log` keeps, the newest.
        port: The port, or 0 for a free one.

    Attributes:
        log: What was asked (`Asked`), the newest last; refused and faulty ones too.

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
        burst: float = 60.0,
        concurrency_limit: int | None = None,
        faults: Mapping[Fault, float] | None = None,
        script: Iterable[Fault | None] = (),
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
        self._quotas = Quotas(
            requests_per_minute, tokens_per_minute, concurrency_limit, burst, time.monotonic
        )
        self._plan = FaultPlan(faults or {}, script, seed)
        self._server = Server(self._application)
        self._seen: Counter[bytes] = Counter()
        self._refused: Counter[str] = Counter()
        self._faulted: Counter[Fault] = Counter()
        self._index = self._running = self._most = self._answered = self._tokens = 0
        self._opened = time.monotonic()
        self.log: deque[Asked] = deque(maxlen=log_size)

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

    def statistics(self) -> ProviderStatistics:
        """What the provider has seen so far."""
        return ProviderStatistics(
            self._index,
            self._answered,
            dict(self._refused),
            dict(self._faulted),
            self._running,
            self._most,
            self._tokens,
        )

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
        dialects: tuple[Dialect, ...] = (Chat(), Messages(), Embedding())
        for dialect in dialects:
            app.router.add_post(dialect.path, self._handler(dialect))
        return app

    def _handler(self, dialect: Dialect) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            raw = await request.read()
            digest = blake2b(raw, digest_size=16).digest()
            try:
                asked = self._note(dialect.asked(json.loads(raw)), digest, request)
            except (BadRequestError, ValueError) as exc:
                return _json(dialect.error(400, str(exc), None), 400)
            fault = self._plan.fault_of(asked.index, digest, asked.occurrence)
            if fault is not None:
                self._faulted[fault] += 1
            if isinstance(fault, int):
                return _json(dialect.error(fault, f"simulated {fault}", None), fault)
            refusal = self._quotas.enter(self._running)
            if refusal is not None:
                return self._refuse(dialect, asked, refusal)
            self._running += 1
            self._most = max(self._most, self._running)
            try:
                text = self._reply(asked)
                text = await text if inspect.isawaitable(text) else text
                refusal = self._quotas.charge(sum(dialect.tokens(asked, text)))
                if refusal is not None:
                    return self._refuse(dialect, asked, refusal)
                return await self._answer(dialect, asked, text, fault, digest, request)
            except ConnectionError:
                return web.Response()  # the client has gone: nobody hears this
            finally:
                self._running -= 1

        return handle

    async def _answer(
        self,
        dialect: Dialect,
        asked: Asked,
        text: str,
        fault: str | None,
        digest: bytes,
        request: web.Request,
    ) -> web.StreamResponse:
        await self._sleep(self._draw(digest, asked.occurrence))
        headers = dialect.headers(asked, self._quotas)
        if asked.body.get("stream") and fault in (None, "cut", "no_end", "error_event"):
            response = await self._stream(dialect, asked, text, fault, headers, request)
        else:
            await self._sleep(self._seconds_per_token * count_tokens(text))
            if fault == "error_event":
                return _json(dialect.error(500, "simulated failure", None), 500)
            body = json.dumps(dialect.answer(asked, text)).encode()
            if fault is not None:
                return await play("cut" if fault == "no_end" else fault, request, body)
            response = web.Response(body=body, headers=headers, content_type="application/json")
        if fault is None:
            self._answered += 1
            self._tokens += sum(dialect.tokens(asked, text))
        return response

    async def _stream(
        self,
        dialect: Dialect,
        asked: Asked,
        text: str,
        fault: str | None,
        headers: dict[str, str],
        request: web.Request,
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **headers})
        await response.prepare(request)
        await response.write(b": keep-alive\n\n")
        events = list(dialect.events(asked, text))
        if fault is not None:
            events = events[: len(events) // 2]
            events += [dialect.error_event()] if fault == "error_event" else []
        for event in events:
            await response.write(event)
            await self._sleep(self._seconds_per_token)
        if fault == "cut" and request.transport is not None:
            request.transport.close()
        return response

    def _note(self, asked: Asked, digest: bytes, request: web.Request) -> Asked:
        headers = {
            name.lower(): value for name, value in request.headers.items() if name.lower() not in _CREDENTIALS
        }
        asked = replace(
            asked,
            headers=headers,
            index=self._index,
            occurrence=self._seen[digest],
            at=time.monotonic() - self._opened,
        )
        self._seen[digest] += 1
        self._index += 1
        self.log.append(asked)
        return asked

    def _refuse(self, dialect: Dialect, asked: Asked, refusal: Refusal) -> web.Response:
        self._refused[refusal.what] += 1
        headers = dialect.headers(asked, self._quotas)
        message = f"Rate limit reached for {asked.model} on {refusal.what}"
        if refusal.wait is not None:
            headers["retry-after"] = str(math.ceil(refusal.wait))
            headers["retry-after-ms"] = str(math.ceil(refusal.wait * 1000))
            message += f". Please try again in {refusal.wait:.3f}s"
        return _json(dialect.error(429, message, "rate_limit_exceeded"), 429, headers)

    def latency_of(self, body: bytes, occurrence: int = 0) -> float:
        """Seconds before the answer to this request body, the n-th time it is sent.

        Example:
            >>> SimulatedProvider(latency=2, spread=0).latency_of(b"anything")
            2.0
        """
        return self._draw(blake2b(body, digest_size=16).digest(), occurrence)

    def _draw(self, digest: bytes, occurrence: int) -> float:
        if not self._latency:
            return 0.0
        source = b"%d|%d|" % (self._seed, occurrence) + digest
        return self._latency * random.Random(source).lognormvariate(0.0, self._spread)

    async def _sleep(self, seconds: float) -> None:
        if seconds:
            await asyncio.sleep(seconds)


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=json.dumps(body).encode(), status=status, headers=headers, content_type="application/json"
    )
