"""What a simulated provider decides, however a request reaches it: over a socket, or in the same process."""

from __future__ import annotations

import inspect
import json
import logging
import math
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TypeAlias

from asyncflow import clock
from asyncflow.testing.asked import Asked, count_tokens
from asyncflow.testing.dialect import Dialect
from asyncflow.testing.faults import EVENTS, REFUSALS, Fault, FaultPlan
from asyncflow.testing.quota import Quotas, Refusal
from asyncflow.testing.said import Replied, Said
from asyncflow.testing.seen import Seen

_log = logging.getLogger("asyncflow")

#: Takes what was asked, returns what to answer (or awaits it).
Reply: TypeAlias = Callable[[Asked], "Replied"]

#: Different requests of which it is known how often they came, at least: some 8 MB.
_REMEMBERED = 50_000

_CREDENTIALS = frozenset({"authorization", "x-api-key", "api-key", "cookie", "proxy-authorization"})


@dataclass(frozen=True, slots=True)
class ProviderStatistics:
    """What a provider has seen so far: all counts are of requests.

    Attributes:
        asked: That came in and could be read.
        answered: That got their answer, whole.
        refused: By reason: `"requests"`, `"tokens"`, `"input_tokens"`, `"output_tokens"`, `"concurrency"`,
            `"slope"`.
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


@dataclass(frozen=True, slots=True)
class Prepared:
    """An answer that is ready to go out.

    Attributes:
        status, headers: Of the answer.
        body: The whole of it, or what is left where `events` is empty.
        events: Its server-sent events, where it is streamed.
        fault: How it goes wrong on its way, or None.
        after: What happens after the last event of a broken stream: `"cut"` or `"stall"`.
    """

    status: int
    headers: dict[str, str]
    body: bytes = b""
    events: tuple[bytes, ...] = ()
    fault: str | None = None
    after: str = ""


class Core:
    """The provider itself: quotas, faults, latencies, and the log.

    Args:
        reply: Makes the text of an answer.
        latency, spread, seconds_per_token, seed: As `SimulatedProvider` takes them.
        quotas: What it lets through.
        plan: What goes wrong.
        log_size: Requests that the log keeps.
    """

    def __init__(
        self,
        reply: Reply,
        latency: float,
        spread: float,
        seconds_per_token: float,
        seed: int,
        quotas: Quotas,
        plan: FaultPlan,
        log_size: int,
    ) -> None:
        self._reply = reply
        self._latency = latency
        self._spread = spread
        self.seconds_per_token = seconds_per_token
        self._seed = seed
        self._quotas = quotas
        self._plan = plan
        self._seen = Seen(_REMEMBERED)
        self._prefixes: set[str] = set()  # in the prompt cache
        self._refused: Counter[str] = Counter()
        self._faulted: Counter[Fault] = Counter()
        self.asked = self.running = 0
        self._most = self._answered = self._tokens = 0
        self.opened = clock.now()
        self.log: deque[Asked] = deque(maxlen=log_size)

    def statistics(self) -> ProviderStatistics:
        """What was seen so far."""
        return ProviderStatistics(
            self.asked,
            self._answered,
            dict(self._refused),
            dict(self._faulted),
            self.running,
            self._most,
            self._tokens,
        )

    @asynccontextmanager
    async def exchange(
        self, dialect: Dialect, raw: bytes, headers: dict[str, str]
    ) -> AsyncIterator[Prepared]:
        """One request and its answer; it counts as running until the block is left."""
        digest = blake2b(raw, digest_size=16).digest()
        try:
            asked = self._note(dialect.asked(json.loads(raw)), digest, headers)
        except ValueError as exc:
            yield _failed(dialect, 400, str(exc))
            return
        fault = self._plan.fault_of(asked.index, digest, asked.occurrence)
        if fault is not None:
            self._faulted[fault] += 1
        if isinstance(fault, int):
            yield _failed(dialect, fault, f"simulated {fault}")
            return
        refused = self._refused_at_once(dialect, asked, fault)
        if refused is not None:
            yield refused
            return
        self.running += 1
        self._most = max(self._most, self.running)
        try:
            try:
                found = self._reply(asked)
                said = Said.of(await found if inspect.isawaitable(found) else found)
                read, written = dialect.tokens(asked, said)
            except Exception as exc:  # a mistake in the user's function, not a fault that was asked for
                _log.exception("asyncflow: the reply of a simulated provider raised")
                yield _failed(dialect, 500, f"the reply function raised {type(exc).__name__}: {exc}")
                return
            refusal = self._quotas.charge(read, written, asked.cached)
            if refusal is not None:
                yield self._refuse(dialect, asked, refusal)
                return
            streamed = bool(asked.body.get("stream"))
            wait = self.draw(digest, asked.occurrence)
            if not streamed:
                wait += self.seconds_per_token * written
            if wait:
                await clock.sleep(wait)
            yield self._prepare(dialect, asked, said, fault, streamed)
            if fault is None:
                self._answered += 1
                self._tokens += read + written
        finally:
            self.running -= 1

    def _refused_at_once(self, dialect: Dialect, asked: Asked, fault: str | None) -> Prepared | None:
        """The answer to a request that nobody works on: a fault that is a refusal, or a quota's."""
        if fault in REFUSALS:
            return _failed(dialect, *REFUSALS[fault])
        refusal = self._quotas.enter(self.running)
        return None if refusal is None else self._refuse(dialect, asked, refusal)

    def draw(self, digest: bytes, occurrence: int) -> float:
        """Seconds before the answer to a request of this digest, the n-th time it is sent."""
        if not self._latency:
            return 0.0
        source = b"%d|%d|" % (self._seed, occurrence) + digest
        return self._latency * random.Random(source).lognormvariate(0.0, self._spread)

    def _prepare(
        self, dialect: Dialect, asked: Asked, said: Said, fault: str | None, streamed: bool
    ) -> Prepared:
        headers = dialect.headers(asked, self._quotas)
        if streamed and fault in (None, "cut", "stall", "no_end", *EVENTS):
            events = list(dialect.events(asked, said))
            if fault is not None:
                events = [] if fault.endswith("_first") else events[: len(events) // 2]
                events += [dialect.error_event(*EVENTS[fault])] if fault in EVENTS else []
            headers["content-type"] = "text/event-stream"
            return Prepared(
                200, headers, events=tuple(events), after=fault if fault in ("cut", "stall") else ""
            )
        if fault in EVENTS:
            return _failed(dialect, *EVENTS[fault])
        headers["content-type"] = "application/json"
        body = json.dumps(dialect.answer(asked, said)).encode()
        return Prepared(200, headers, body, fault="cut" if fault == "no_end" else fault)

    def _note(self, asked: Asked, digest: bytes, headers: dict[str, str]) -> Asked:
        asked = replace(
            asked,
            headers={name: value for name, value in headers.items() if name not in _CREDENTIALS},
            index=self.asked,
            occurrence=self._seen.count(digest),
            at=clock.now() - self.opened,
            cached=count_tokens(asked.prefix) if asked.prefix in self._prefixes else 0,
        )
        if asked.prefix:
            self._prefixes.add(asked.prefix)
        self.asked += 1
        self.log.append(asked)
        return asked

    def _refuse(self, dialect: Dialect, asked: Asked, refusal: Refusal) -> Prepared:
        self._refused[refusal.what] += 1
        headers = dialect.headers(asked, self._quotas)
        message = f"Rate limit reached for {asked.model} on {refusal.what}"
        if refusal.wait is not None:
            headers["retry-after"] = str(math.ceil(refusal.wait))
            headers["retry-after-ms"] = str(math.ceil(refusal.wait * 1000))
            message += f". Please try again in {refusal.wait:.3f}s"
        return _failed(dialect, 429, message, "rate_limit_exceeded", headers)


def _failed(
    dialect: Dialect,
    status: int,
    message: str,
    code: str | None = None,
    headers: dict[str, str] | None = None,
) -> Prepared:
    body = json.dumps(dialect.error(status, message, code)).encode()
    return Prepared(status, {**(headers or {}), "content-type": "application/json"}, body)
