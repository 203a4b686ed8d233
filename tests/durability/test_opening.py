"""Opening and closing a run happen on a thread, whoever cancels meanwhile."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from asyncflow.durability import MemoryStore, open_journal
from asyncflow.durability import writer as writers
from asyncflow.durability.journal import RunJournal
from asyncflow.durability.opening import open_run
from asyncflow.errors import StoreLockedError


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


class Together(str):
    """A key that no thread looks up a second time before two have done so once."""

    def __new__(cls, key: str) -> Together:
        made = super().__new__(cls, key)
        made.threads, made.both = set(), threading.Event()
        return made

    def __hash__(self) -> int:
        me = threading.get_ident()
        if me in self.threads:
            assert self.both.wait(20)
        self.threads.add(me)
        if len(self.threads) == 2:
            self.both.set()
        return super().__hash__()


def test_of_two_threads_that_open_a_run_at_the_same_moment_one_is_refused() -> None:
    """Both would make the same calls."""
    store, found, done = MemoryStore(), [], threading.Barrier(2, timeout=20)
    store.key = Together(store.key)

    def work() -> None:
        try:
            with open_run(store, "a"):
                found.append("in")
                done.wait()
        except StoreLockedError:
            found.append("refused")
            done.wait()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["in", "refused"]


def test_a_run_that_cannot_be_read_back_leaves_no_session_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store stays open for another run, so nobody would find that this one was cut off."""

    def unreadable(*_: Any) -> None:
        raise OSError("unreadable")

    store = MemoryStore()
    with open_run(store, "a"):
        pass
    with open_run(store, "b"):
        with monkeypatch.context() as patch:
            patch.setattr(RunJournal, "_look_back", unreadable)
            with pytest.raises(OSError, match="unreadable"), open_run(store, "a"):
                pass
        run = store.open_reader().run("a")
    assert run is not None and [each.how for each in run.sessions] == ["finished", "failed"]
