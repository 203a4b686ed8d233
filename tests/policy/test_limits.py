"""asyncflow/policy/limits.py: who shares which limits."""

from __future__ import annotations

import asyncio
import logging

import anyio
import pytest

from asyncflow.clock import FakeClock
from asyncflow.events import Event, LimitChanged
from asyncflow.policy import LaneSettings, Limits
from tests.policy.provider import BACKENDS, run


def test_one_lane_for_each_provider_key_and_model() -> None:
    """The same three share a lane; another of any is another lane. A slash at the end makes no difference."""
    limits = Limits(concurrency=4)
    one = limits.lane("http://a/v1", "key", "m")
    assert one is limits.lane("http://a/v1/", "key", "m")
    others = [limits.lane("http://b/v1", "key", "m"), limits.lane("http://a/v1", "other", "m")]
    assert len({id(lane) for lane in [one, *others, limits.lane("http://a/v1", "key", "n")]}) == 4
    assert [lane.limit for lane in others] == [4, 4]
    assert len(limits.statistics()) == 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_default_lanes_belong_to_the_loop(backend: str) -> None:
    """Who is given no Limits shares those of the running loop, and the next loop begins afresh."""

    async def main() -> list[Limits]:
        found = [Limits.of_loop()]

        async def child() -> None:
            found.append(Limits.of_loop())

        async with anyio.create_task_group() as group:
            group.start_soon(child)
        return found

    first, second = anyio.run(main, backend=backend), anyio.run(main, backend=backend)
    assert first[0] is first[1] and first[0] is not second[0]
    if backend == "asyncio":
        assert asyncio.run(main())[0] is not second[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_fake_clock_has_its_own(backend: str) -> None:
    """What a lane has counted on one clock means nothing on another, so a test begins afresh in each."""

    async def main() -> None:
        outside = Limits.of_loop()
        with FakeClock():
            inside = Limits.of_loop()
            assert inside is Limits.of_loop() and inside is not outside
        with FakeClock():
            assert Limits.of_loop() not in (inside, outside)
        assert Limits.of_loop() is outside

    anyio.run(main, backend=backend)


def test_outside_a_loop_there_are_none() -> None:
    """Default limits without an event loop are an error, not a global."""
    with pytest.raises(RuntimeError):
        Limits.of_loop()


def test_the_stricter_wins_and_says_so() -> None:
    """A second user with a lower limit lowers it for both, with an event; a higher one changes nothing."""
    limits = Limits(requests_per_minute=1000)
    lane = limits.lane("http://a/v1", "key", "m", LaneSettings(requests_per_minute=600))
    assert lane.settings.requests_per_minute == 600 and not limits.events
    limits.lane("http://a/v1", "key", "m", LaneSettings(requests_per_minute=500))
    limits.lane("http://a/v1", "key", "m", LaneSettings(requests_per_minute=700))
    assert lane.settings.requests_per_minute == 500
    (event,) = limits.events
    assert isinstance(event, LimitChanged)
    assert (event.lane, event.old, event.new) == ("m at a", 600, 500)


def test_keys_are_nowhere() -> None:
    """Neither a key nor an address's user and query is in repr, names or events."""
    limits = Limits(concurrency=2)
    limits.lane("http://user:canary@a:1/v1?key=canary", "canary", "m", LaneSettings(concurrency=1))
    shown = (
        repr(limits) + repr(limits.statistics()) + repr(list(limits.events)) + repr(vars(limits)["settings"])
    )
    assert "canary" not in shown and "m at a" in shown


def test_listeners_hear_and_cannot_harm(caplog: pytest.LogCaptureFixture) -> None:
    """Events reach each listener until it ends or raises; a raising one is told no more, and logged once."""
    limits, heard = Limits(seed=1), []

    def broken(event: Event) -> None:
        raise KeyError("x")

    end = limits.listen(heard.append)
    limits.listen(broken)
    with caplog.at_level(logging.WARNING, "asyncflow"):
        for number in (9, 8, 7):
            limits.lane("", "", "m", LaneSettings(concurrency=number))
    assert [event.new for event in heard] == [8, 7] and len(caplog.records) == 1
    end()
    limits.lane("", "", "m", LaneSettings(concurrency=1))
    assert len(heard) == 2 and len(limits.events) == 3


def test_two_users_keep_one_quota() -> None:
    """Two crowds that share a lane get its rate together, not each."""
    limits = Limits(requests_per_minute=600)

    async def crowd() -> None:
        for _ in range(100):
            async with limits.lane("http://a", "k", "m").attempt():
                pass

    async def main() -> float:
        from asyncflow import clock

        async with anyio.create_task_group() as group:
            group.start_soon(crowd)
            group.start_soon(crowd)
        return clock.now()

    assert run(main) == pytest.approx(200 / 9.88, abs=0.5)
