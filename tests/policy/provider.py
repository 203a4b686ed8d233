"""A provider in process, on the clock of the test: quotas, a hidden limit, outages. A model, not a server."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import anyio

from asyncflow import clock, errors
from asyncflow.policy.lane import RateLane
from asyncflow.policy.tokens import Tokens

BACKENDS = ("asyncio", "trio")


def run(main: Callable[[], Any], backend: str = "asyncio") -> Any:
    """Run `main` to its end on virtual time."""

    async def on_fake_clock() -> Any:
        with clock.FakeClock():
            return await main()

    return anyio.run(on_fake_clock, backend=backend)


class Provider:
    """Refuses by sliding windows, which is the strictest way to count, and by calls at once.

    Args:
        latency: Median seconds of a call; log-normal with `spread`.
        as_long: Whether answers take as long as they are, as real ones do: `latency` is that of 200 tokens.
        requests_per_minute, tokens_per_minute: Quotas; a call is charged with what it uses.
        counted: When its tokens are: when it `"comes"`, or when it is `"done"`.
        at_once: The hidden limit.
        retry_after: What a refusal asks for.
        refusal: Seconds that a refusal takes.
        down: `down(now)` returns an error to raise instead, or None.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        latency: float = 0.5,
        spread: float = 0.3,
        as_long: bool = False,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        counted: Literal["comes", "done"] = "comes",
        at_once: int | None = None,
        retry_after: float | None = None,
        refusal: float = 0.02,
        down: Callable[[float], Exception | None] = lambda now: None,
    ) -> None:
        self.random = random.Random(seed)
        self.latency, self.spread, self.refusal = latency, spread, refusal
        self.as_long, self.counted = as_long, counted
        self.requests_per_minute, self.tokens_per_minute = requests_per_minute, tokens_per_minute
        self.at_once, self.retry_after, self.down = at_once, retry_after, down
        self.window: deque[float] = deque()
        self.window_tokens: deque[tuple[float, int]] = deque()
        self.tokens = 0
        self.running = self.peak = 0
        self.asked: list[float] = []
        self.served: list[tuple[float, int]] = []
        self.refused: list[float] = []

    async def call(self, tokens: int = 0, written: int = 0) -> int:
        """One call that uses so many tokens, some of them written."""
        now = clock.now()
        self.asked.append(now)
        self._forget(now)
        error = self.down(now)
        if error is not None:
            await clock.sleep(self.refusal)
            raise error
        at_once = tokens if self.counted == "comes" else 0
        over = (
            (self.requests_per_minute is not None and len(self.window) + 1 > self.requests_per_minute)
            or (self.tokens_per_minute is not None and self.tokens + at_once > self.tokens_per_minute)
            or (self.at_once is not None and self.running >= self.at_once)
        )
        if over:
            self.refused.append(now)
            await clock.sleep(self.refusal)
            raise errors.RateLimitedError("429", status=429, retry_after=self.retry_after)
        self.window.append(now)
        self._charge(now, at_once)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            median, spread = (
                (self.latency * written / 200, 0.1) if self.as_long else (self.latency, self.spread)
            )
            await clock.sleep(median * self.random.lognormvariate(0.0, spread))
        finally:
            self.running -= 1
        self._forget(clock.now())
        self._charge(clock.now(), tokens - at_once)
        self.served.append((now, tokens))
        return tokens

    def _charge(self, now: float, tokens: int) -> None:
        self.window_tokens.append((now, tokens))
        self.tokens += tokens

    def _forget(self, now: float) -> None:
        while self.window and self.window[0] <= now - 60.0:
            self.window.popleft()
        while self.window_tokens and self.window_tokens[0][0] <= now - 60.0:
            self.tokens -= self.window_tokens.popleft()[1]


class Full(Provider):
    """Serves so many at once, lets the others wait, and refuses nobody, as a model server of one's own does.

    Args:
        seats: How many.
        later: From which second on there are how many instead.
        options: As for a `Provider`.
    """

    def __init__(self, seats: int, *, later: tuple[float, int] = (math.inf, 0), **options: Any) -> None:
        super().__init__(**options)
        self.seats, self.later = seats, later
        self.queue: deque[anyio.Event] = deque()

    async def call(self, tokens: int = 0, written: int = 0) -> int:
        while self.running >= (self.seats if clock.now() < self.later[0] else self.later[1]):
            self.queue.append(anyio.Event())
            await self.queue[-1].wait()
        try:
            return await super().call(tokens, written)
        finally:
            for _ in range(min(2, len(self.queue))):  # the second finds out whether there is a new seat
                self.queue.popleft().set()


class Over(Exception):
    """The time is over; nothing was sent."""


async def work(
    lane: RateLane,
    provider: Provider,
    *,
    seconds: float,
    workers: int,
    size: Callable[[random.Random], int] = lambda random: 0,
    max_tokens: int | None = None,
    prompt: int = 100,
    seed: int = 1,
) -> None:
    """As many workers, each making calls as a client does, until the time is over."""
    sizes = random.Random(seed)
    end = clock.now() + seconds

    async def worker() -> None:
        while clock.now() < end:
            output = size(sizes)
            while True:
                try:
                    async with lane.attempt(lambda: lane.estimate.reserve(4 * prompt, max_tokens)) as ticket:
                        if clock.now() >= end:
                            raise Over
                        await provider.call(prompt + output, output)
                        ticket.used(Tokens(prompt, output))
                        lane.estimate.learn(4 * prompt, prompt, output)
                    break
                except (errors.RateLimitedError, errors.ServerError):
                    continue
                except Over:
                    return

    async with anyio.create_task_group() as group:
        for _ in range(workers):
            group.start_soon(worker)
