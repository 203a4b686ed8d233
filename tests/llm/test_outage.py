"""A provider that is down for a while: calls wait, and none is lost. On the fake clock."""

from __future__ import annotations

import json

import anyio
import httpx
import pytest

from asyncflow import Failed, amap, clock, errors
from asyncflow.clock import FakeClock
from asyncflow.events import LanePaused, LaneResumed
from asyncflow.llm import LLMClient
from asyncflow.policy import Limits
from tests.policy.provider import BACKENDS

ANSWER = {"choices": [{"message": {"content": "yes"}}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}


class Sometimes(httpx.AsyncBaseTransport):
    """Answers after a second; with 503, or not at all, from `since` to `until`; always 500 for one prompt."""

    def __init__(self, since: float, until: float, *, connects: bool = True) -> None:
        self.since, self.until, self.connects = since, until, connects
        self.asked: list[float] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(clock.now())
        body = await request.aread()
        if self.since <= clock.now() < self.until:
            await clock.sleep(0.01)
            if not self.connects:
                raise httpx.ConnectError("nobody there", request=request)
            return httpx.Response(503, json={"error": {"message": "down"}}, request=request)
        await clock.sleep(1.0)
        if b"poison" in body:
            return httpx.Response(500, json={"error": {"message": "cannot"}}, request=request)
        return httpx.Response(200, content=json.dumps(ANSWER).encode(), request=request)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("connects", [True, False], ids=["503", "unreachable"])
@pytest.mark.parametrize("concurrency", [3, 40])
def test_an_outage_burns_nothing(concurrency: int, connects: bool, backend: str) -> None:
    """Down for four minutes: within 20 calls and those under way only probes are sent, and no item fails."""
    limits = Limits(seed=1)

    async def main() -> tuple[Sometimes, list[object]]:
        with FakeClock():
            transport = Sometimes(10.0, 250.0, connects=connects)
            async with httpx.AsyncClient(transport=transport) as http:
                options = {"base_url": "http://x/v1", "api_key": "", "http": http, "limits": limits}
                async with LLMClient("m", **options) as llm:  # type: ignore[arg-type]
                    items = [f"item {number}" for number in range(60 * concurrency)]
                    done = await amap(llm.complete, items, concurrency=concurrency, on_error="continue")
        return transport, done

    transport, done = anyio.run(main, backend=backend)
    assert [one for one in done if isinstance(one, Failed)] == []
    down = [moment for moment in transport.asked if 10.0 <= moment < 250.0]
    assert sum(moment <= down[0] + 5 for moment in down) <= 20 + concurrency
    assert len(down) <= 20 + concurrency + 10
    said = [type(event) for event in limits.events if isinstance(event, (LanePaused, LaneResumed))]
    assert said[0] is LanePaused and said[-1] is LaneResumed


def test_one_payload_that_always_fails_is_given_up() -> None:
    """Among calls that are answered, a deterministic 500 fails after its own attempts, and stops nobody."""

    async def main() -> tuple[Sometimes, list[object]]:
        with FakeClock():
            transport = Sometimes(0.0, 0.0)
            async with httpx.AsyncClient(transport=transport) as http:
                async with LLMClient("m", base_url="http://x/v1", api_key="", http=http) as llm:
                    items = [f"item {number}" if number % 10 else "poison" for number in range(100)]
                    done = await amap(llm.complete, items, concurrency=8, on_error="continue")
        return transport, done

    transport, done = anyio.run(main)
    failed = [one for one in done if isinstance(one, Failed)]
    assert len(failed) == 10 and all(isinstance(one.error, errors.ServerError) for one in failed)
    assert len(transport.asked) == 90 + 10 * 4


def test_payloads_that_always_fail_in_a_row_end_too() -> None:
    """Nothing but poison, one after the other: it looks like an outage for a while, and each still ends."""

    async def main() -> tuple[float, list[object]]:
        with FakeClock():
            async with httpx.AsyncClient(transport=Sometimes(0.0, 0.0)) as http:
                async with LLMClient("m", base_url="http://x/v1", api_key="", http=http) as llm:
                    await llm.complete("it has answered before")
                    done = await amap(llm.complete, ["poison"] * 5, concurrency=1, on_error="continue")
                    return clock.now(), done

    seconds, done = anyio.run(main)
    assert all(isinstance(one, Failed) for one in done) and seconds < 3600
