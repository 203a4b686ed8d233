"""Opening and closing a run happen on a thread, whoever cancels meanwhile."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from asyncflow.durability import MemoryStore, open_journal
from asyncflow.durability import writer as writers


class SlowStore(MemoryStore):
    """Holds on in the middle of opening, or of closing, until it is let go."""

    def __init__(self, phase: str) -> None:
        super().__init__()
        self.phase = phase
        self.reached, self.go_on = threading.Event(), threading.Event()

    def hold(self, phase: str) -> None:
        if phase == self.phase:
            self.reached.set()
            assert self.go_on.wait(30)

    def open_reader(self) -> Any:
        self.hold("opening")
        return super().open_reader()

    def open_writer(self) -> Any:
        writer, hold = super().open_writer(), self.hold
        end = writer.end

        def held(*arguments: Any) -> None:
            hold("closing")
            end(*arguments)

        writer.end = held  # type: ignore[method-assign]
        return writer


@pytest.mark.parametrize("phase", ["opening", "closing"])
def test_a_task_cancelled_meanwhile_gives_the_store_back(phase: str) -> None:
    """asyncio's own cancel, which no scope of anyio holds off: the run is closed, nobody holds the store."""
    store = SlowStore(phase)

    async def work() -> None:
        async with open_journal(store, "a"):
            pass

    async def main() -> None:
        task = asyncio.create_task(work())
        await asyncio.to_thread(store.reached.wait, 30)
        task.cancel()
        await asyncio.wait([task], timeout=0)
        assert not task.done()
        store.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert store.key not in writers._shared

    asyncio.run(main())
    run = store.open_reader().run("a")
    assert run is not None
    (session,) = run.sessions
    assert session.how in ("cancelled", "finished")
