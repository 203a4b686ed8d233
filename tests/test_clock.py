"""The fake clock on every loop, and without one."""

from __future__ import annotations

import time
from typing import Any

import anyio

from asyncflow import Node, clock
from asyncflow.clock import FakeClock, sleep


def test_time_jumps_to_the_next_timer(run: Any) -> None:
    """With autojump a wait of hours takes no time, and timers come due in their order."""
    order: list[tuple[str, float]] = []

    async def main() -> float:
        with FakeClock() as fake:

            async def wait(name: str, seconds: float) -> None:
                await sleep(seconds)
                order.append((name, fake.now()))

            async with anyio.create_task_group() as group:
                group.start_soon(wait, "late", 7200)
                group.start_soon(wait, "soon", 5)
                group.start_soon(wait, "middle", 60)
            assert fake.waits and sorted(fake.waits) == [5, 60, 7200]
            return clock.now()

    assert run(main) == 7200
    assert order == [("soon", 5), ("middle", 60), ("late", 7200)]


def test_without_autojump_time_moves_only_when_told(run: Any) -> None:
    """`advance` moves time, and what it wakes runs in between; a cancelled wait leaves no timer."""
    woken = []

    async def main() -> None:
        with FakeClock(autojump=False) as fake:

            async def chain() -> None:
                for _ in range(3):
                    await sleep(1)
                    woken.append(fake.now())

            async with anyio.create_task_group() as group:
                group.start_soon(chain)
                await fake.advance(0.5)
                assert woken == []
                await fake.advance(2)
                assert woken == [1, 2] and fake.now() == 2.5
                group.cancel_scope.cancel()
            await fake.advance(10)
            assert woken == [1, 2]

    run(main)


def test_a_fake_clock_serves_one_loop_after_another(run: Any) -> None:
    """A timer that was still set when one loop ended does not stop the clock on the next."""

    async def leaves_a_timer() -> None:
        fake.call_later(1000, lambda: None)

    async def waits() -> float:
        with anyio.fail_after(5):
            await sleep(5)
        return fake.now()

    with FakeClock() as fake:
        run(leaves_a_timer)
        assert run(waits) >= 5
        assert run(waits) >= 10


def test_a_synchronous_flow_waits_on_the_fake_clock() -> None:
    """Without an event loop the driver itself jumps."""
    attempts = []

    class Twice(Node):
        def exec(self, prep_res: Any) -> str:
            attempts.append(clock.now())
            if len(attempts) < 3:
                raise OSError
            return "done"

    with FakeClock() as fake:
        Twice(max_retries=3, wait=10).run({})
    assert attempts == [0, 10, 20]
    assert fake.waits == [10, 10]


def test_outside_the_block_time_is_real() -> None:
    """Leaving the block puts the clock before it back, nested blocks too."""
    with FakeClock() as outer:
        with FakeClock() as inner:
            assert clock.current() is inner
        assert clock.current() is outer
    assert clock.current() is clock.SYSTEM
    assert repr(outer) == "<FakeClock now=0 timers=0>"


def test_the_date_moves_with_the_clock() -> None:
    """The real one is that of the calendar; a fake one begins at 2020 and moves as its clock does."""
    assert abs(clock.wall() - time.time()) < 60
    with FakeClock(autojump=False) as fake:
        assert clock.wall() == 1_577_836_800.0
        fake.jump(3600)
        assert clock.wall() == 1_577_836_800.0 + 3600
