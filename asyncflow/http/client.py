"""`HTTPClient`: one HTTP call done well, to any endpoint."""

from __future__ import annotations

import re
import ssl
from collections.abc import Awaitable, Callable, Container, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from types import TracebackType
from typing import Any, Literal, TypeVar

import httpx

from asyncflow import clock, errors
from asyncflow.http import address, failures, redirects
from asyncflow.http.attempts import IDEMPOTENT, Tally, wait_before_next, wait_in_outage
from asyncflow.http.body import encode_json
from asyncflow.http.call import Call, Target
from asyncflow.http.endpoint import Endpoint
from asyncflow.http.lane import Lane, OpenLane
from asyncflow.http.stream import Stream
from asyncflow.http.timeouts import Timeouts
from asyncflow.http.wire import Wire
from asyncflow.policy.ending import Ending, ending_of
from asyncflow.policy.lane import RateLane
from asyncflow.policy.limits import Limits
from asyncflow.policy.retry import Retry
from asyncflow.policy.settings import LaneSettings
from asyncflow.waiting import waiting

T = TypeVar("T")
A = TypeVar("A")

#: What `request` and `LLMClient` repeat by default.
RETRY = Retry(attempts=4, wait=0.5, max_wait=60.0)

#: Whether an address says how it is spoken to, as `http://…` does and `/path?next=http://…` does not.
_HAS_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://").match

#: Refusals of one call that only its lane waits for. One that is refused more often waits longer than others.
_LANE_WAITS = 5


@dataclass(frozen=True, slots=True)
class HTTPStatistics:
    """What a client has done so far.

    Attributes:
        calls: Calls that have ended, well or not.
        failed: Those that ended with an error (cancelled ones are in neither).
        attempts: Requests that went over the wire.
        refused: Attempts that were refused for now, by status 429 or in the words of an answer.
        running: Calls under way now.
    """

    calls: int = 0
    failed: int = 0
    attempts: int = 0
    refused: int = 0
    running: int = 0


class HTTPClient:
    """Calls any HTTP endpoint, with retries, finite timeouts, a largest answer, and one tree of errors.

    It sets no limit of its own on how many calls run at once: that is the business of `amap`, a node, or a
    `lane`. An error that leaves it after it was allowed to repeat has `exhausted` set, so that a node does
    not multiply its attempts.

    Args:
        base_url: Put before addresses that have no scheme.
        headers: Sent with every request.
        timeout: A `Timeouts`, or seconds for one attempt as a whole. None: the defaults, all finite.
        retry: What is repeated, how often, and after how long; None repeats nothing. A 429 has attempts of
            its own (twenty) and does not use up these. `retry-after`, up to an hour, and `x-should-retry`
            are obeyed. A request that may not arrive twice (POST, PATCH, unless `idempotent`) is repeated
            only where the server cannot have carried it out.
        lane: Where attempts wait for their turn: one of your own, or a function that finds it when it is
            first needed. Else, with any of the next three, it is
            that of `base_url` and the client's credentials.
        limits: Whose lanes; by default those that belong to the running event loop.
        requests_per_minute, concurrency: Limits for that lane. Of two clients' settings the stricter counts.
            `concurrency="auto"` finds the number at once that the server takes.
        max_body_size_bytes: The largest answer, decompressed.
        max_redirects: Redirects followed in one attempt. Credentials never go to another origin.
        client: An `httpx.AsyncClient` of your own to send through; it stays open. Its redirects are off.
        transport: An httpx transport to send through instead; it stays open.
        tls: The TLS context; by default the system's idea of it, `SSL_CERT_FILE` included.
        trust_env: Whether proxies are read from the environment (once, when the client is first used).

    Cancelling a call closes its connection and no other.

    Example:
        >>> async def sizes(urls):
        ...     async with HTTPClient(timeout=20) as http:
        ...         return [len((await http.get(url)).content) for url in urls]
    """

    def __init__(
        self,
        *,
        base_url: str = "",
        headers: Mapping[str, str] | None = None,
        timeout: Timeouts | float | None = None,
        retry: Retry | None = RETRY,
        lane: Lane | Callable[[], Lane] | None = None,
        limits: Limits | None = None,
        requests_per_minute: float | None = None,
        concurrency: int | Literal["auto"] | None = None,
        max_body_size_bytes: int = 64 * 1024 * 1024,
        max_redirects: int = 5,
        client: httpx.AsyncClient | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        tls: ssl.SSLContext | None = None,
        trust_env: bool = True,
    ) -> None:
        self._base = address.checked(base_url, "base_url").rstrip("/") if base_url else ""
        self._headers = httpx.Headers(
            {"accept": "*/*", "accept-encoding": "gzip, deflate", "user-agent": "asyncflow"}
        )
        self._headers.update(headers)
        self._headers.encoding = "utf-8"  # said once, else httpx works it out at every look
        self.timeouts = Timeouts.of(timeout)
        if not (retry is None or isinstance(retry, Retry)):
            raise TypeError(f"retry={retry!r}: give a Retry, such as Retry(attempts=3, wait=0.5), or None")
        if not (limits is None or isinstance(limits, Limits)):
            raise TypeError(f"limits={limits!r}: give a Limits, such as Limits(requests_per_minute=500)")
        self._retry = retry
        settings = LaneSettings(requests_per_minute, None, concurrency)
        if limits is None and settings == LaneSettings():
            lane = lane if lane is not None else OpenLane()
        elif lane is not None:
            raise ValueError("lane= is instead of limits=, requests_per_minute= and concurrency=: give one")
        self._lane: Lane | None = None if lane is None or callable(lane) else lane
        self._find_lane = lane if callable(lane) else self._lane_of(limits, settings)
        self._max_body_size_bytes = max_body_size_bytes
        self._max_redirects = max_redirects
        self._wire = Wire(client=client, transport=transport, tls=tls, trust_env=trust_env)
        self._calls = self._failed = self._attempts = self._refused = self._running = 0

    async def get(self, url: str, **options: Any) -> httpx.Response:
        """`request("GET", url, …)`."""
        return await self.request("GET", url, **options)

    async def post(self, url: str, **options: Any) -> httpx.Response:
        """`request("POST", url, …)`."""
        return await self.request("POST", url, **options)

    async def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        data: Mapping[str, Any] | None = None,
        content: bytes | str | None = None,
        timeout: Timeouts | float | None = None,
        idempotent: bool | None = None,
        accept: Container[int] = (),
    ) -> httpx.Response:
        """The answer to one call, its body read.

        Args:
            method, url, params, headers: As in httpx; `url` may continue `base_url`.
            json, data, content: The body, as JSON, as a form, or as it is; at most one of them.
            timeout: For this call, instead of the client's.
            idempotent: Whether it may arrive twice; by default what the method says, and True where an
                `Idempotency-Key` header is sent.
            accept: Statuses to return as they are, besides the 2xx (and 304).

        Raises:
            HTTPError: Of the class that says what happened; see `asyncflow.errors`.
        """
        method = method.upper()
        body, kind = _body(json, data, content)
        address = _url(url if _HAS_SCHEME(url) or not self._base else f"{self._base}/{url.lstrip('/')}")
        if params is not None:
            address = address.copy_merge_params(params)
        target = Target(method, address, self._with(kind, headers))
        if idempotent is None:
            idempotent = method in IDEMPOTENT or "idempotency-key" in target.headers
        timeouts = self.timeouts if timeout is None else Timeouts.of(timeout)
        call = Call(target, body or b"", timeouts=timeouts, repeatable=idempotent, accept=accept)
        return await self.call(call, _as_it_is)

    def _with(self, kind: str | None, headers: Mapping[str, str] | None) -> httpx.Headers:
        """The client's headers, the body's type, and a call's own: the later ones win."""
        found = self._headers.copy()
        if kind is not None:
            found["content-type"] = kind
        if headers:
            found.update(headers)
        return found

    def call(self, call: Call, read: Callable[[httpx.Response], T]) -> Coroutine[Any, Any, T]:
        """Make a call, attempt after attempt, until `read` has made something of an answer. To be awaited.

        Args:
            call: What to send.
            read: Takes a good answer and returns the result; what it raises ends the attempt.
        """
        return self._repeat(call, HTTPClient._attempt, read)

    async def open(self, call: Call, begin: Callable[[Stream], Awaitable[T]]) -> tuple[Stream, T]:
        """Open an answer that is read while it comes; whoever has it closes it.

        Args:
            call: What to send.
            begin: Reads the stream's beginning; what it raises ends the attempt, and may be repeated.
        """
        return await self._repeat(call, HTTPClient._open, begin)

    def endpoint(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        advice: Mapping[int, str] | None = None,
    ) -> Endpoint:
        """An address that takes and gives JSON, prepared for many calls.

        Args:
            method, url, headers: Of every call.
            advice: What to do about a status, for the texts of errors.

        Example:
            >>> HTTPClient().endpoint("POST", "http://127.0.0.1:8000/v1/chat/completions").place
            'http://127.0.0.1:8000/v1/chat/completions'
        """
        prepared = self._headers.copy()
        prepared["content-type"] = "application/json"
        prepared.update(headers)
        return Endpoint(self, method, url, prepared, advice)

    def statistics(self) -> HTTPStatistics:
        """What the client has done so far."""
        return HTTPStatistics(self._calls, self._failed, self._attempts, self._refused, self._running)

    def _lane_of(self, limits: Limits | None, settings: LaneSettings) -> Callable[[], Lane]:
        secret = " ".join(self._headers.get(name, "") for name in sorted(failures.SECRET_HEADERS)).strip()
        return lambda: (limits if limits is not None else Limits.of_loop()).lane(
            self._base, secret, settings=settings, stops_when_denied=bool(secret)
        )

    @property
    def lane(self) -> Lane:
        """Where attempts wait. A lane of the event loop is looked up when it is first needed."""
        if self._lane is None:
            self._lane = self._find_lane()
        return self._lane

    async def aclose(self) -> None:
        """Close the connections; calls under way fail, and later ones too. Safe to call twice."""
        await self._wire.aclose()

    async def __aenter__(self) -> HTTPClient:
        self._wire.open()
        lane = self.lane
        if isinstance(lane, RateLane):
            lane.probe()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        base = failures.plain_url(httpx.URL(self._base)) if self._base else ""
        return f"<HTTPClient {base} running={self._running} calls={self._calls}>".replace("  ", " ")

    async def _repeat(
        self, call: Call, attempt: Callable[[HTTPClient, Call, A, bool], Awaitable[T]], argument: A
    ) -> T:
        """`attempt(self, call, argument, …)` until it succeeds or nothing more is to be tried."""
        tally = Tally()
        self._running += 1
        try:
            while True:
                try:
                    if tally.attempts and call.meter is not None:
                        await call.meter.again()
                    return await attempt(self, call, argument, tally.failures > 0)
                except Exception as error:
                    tally.count(error)
                    if call.meter is not None and ending_of(error) is Ending.CUT:
                        call.meter.lost(len(call.content))
                    refused = isinstance(error, errors.RateLimitedError)
                    self._refused += refused
                    wait = wait_before_next(error, tally, self._retry, call.repeatable)
                    if wait is None and isinstance(self._lane, RateLane) and self._lane.failing:
                        wait = wait_in_outage(error, tally, self._retry, call.repeatable)
                    if wait is None:
                        self._failed += 1
                        if isinstance(error, errors.HTTPError):
                            error.attempts = tally.attempts
                            error.exhausted = self._retry is not None
                        raise
                    if refused and isinstance(self._lane, RateLane) and tally.refusals <= _LANE_WAITS:
                        continue  # the lane itself waits, for everybody
                async with waiting("retry"):
                    await clock.sleep(wait)
        finally:
            self._running -= 1
            self._calls += 1

    async def _attempt(self, call: Call, read: Callable[[httpx.Response], T], retry: bool) -> T:
        """One try: a request, the redirects it leads through, and what `read` makes of the answer."""
        async with self.lane.attempt(call.reserve, retry=retry) as ticket:
            redirected = 0
            deadline = clock.now() + call.timeouts.total
            while True:
                self._attempts += 1
                response = await self._wire.send(call, self._max_body_size_bytes)
                status = response.status_code
                if status not in redirects.STATUSES or status in call.accept:
                    break
                redirected += 1
                if redirected > self._max_redirects:
                    raise redirects.refused(response, f"it is number {redirected} in a row")
                target, content = redirects.following(response)
                if call.keep_method and target.method != call.target.method:
                    where = failures.plain_url(target.url)
                    raise redirects.refused(response, f"the right address is probably {where}")
                left = deadline - clock.now()
                if left <= 0:
                    raise failures.from_httpx(httpx.TimeoutException("total"), call.request())
                call = replace(
                    call,
                    target=target,
                    headers=None,
                    content=content,
                    redirected=True,
                    timeouts=replace(call.timeouts, total=left),
                )
            ticket.answered(response.headers)
            if status >= 300 and status not in call.accept:
                error = failures.from_status(response, call.advice)
                if error is not None:
                    raise error
            result = read(response)
            if call.meter is not None:
                ticket.used(call.meter.used(len(call.content), result))
            return result

    async def _open(
        self, call: Call, begin: Callable[[Stream], Awaitable[T]], retry: bool
    ) -> tuple[Stream, T]:
        async with AsyncExitStack() as leave:
            ticket = await leave.enter_async_context(self.lane.attempt(call.reserve, retry=retry))
            self._attempts += 1
            deadline = clock.now() + call.timeouts.total
            response = await self._wire.send(call, None)
            leave.push_async_callback(response.aclose)
            ticket.answered(response.headers)
            if response.status_code >= 300:
                raise await self._wire.refusal(response, self._max_body_size_bytes, call.advice, deadline)
            stream = Stream(response, leave, ticket, deadline, self._max_body_size_bytes)
            result = await begin(stream)
            self._running += 1  # an open stream is a call under way
            leave.push(self._stream_closed)
            stream.leave = leave.pop_all()  # from here on, closing is up to who has the stream
            return stream, result

    def _stream_closed(self, kind: object, exc: BaseException | None, tb: object) -> None:
        self._running -= 1
        self._refused += isinstance(exc, errors.RateLimitedError)


def _as_it_is(response: httpx.Response) -> httpx.Response:
    return response


@lru_cache(512)
def _url(text: str) -> httpx.URL:
    return httpx.URL(address.checked(text, "url"))  # which takes longer than most of what follows


def _body(
    json: Any, data: Mapping[str, Any] | None, content: bytes | str | None
) -> tuple[bytes | None, str | None]:
    """The body's bytes and its content type."""
    if sum(part is not None for part in (json, data, content)) > 1:
        raise ValueError("json=, data= and content= are three ways to give the body: use one")
    if json is not None:
        return encode_json(json), "application/json"
    if data is not None:
        form = httpx.Request("POST", "http://form", data=dict(data))
        return form.content, form.headers["content-type"]
    return (content.encode() if isinstance(content, str) else content), None
