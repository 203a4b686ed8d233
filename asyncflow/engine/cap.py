"""The run-wide bound on running `exec`s."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from asyncflow.engine.tasks import Host


class Cap:
    """How many `exec`s of a run are running, over all its nodes, and who is next. First come first served."""

    def __init__(self, host: Host, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self._host = host
        self._queue: deque[_Ticket] = deque()

    async def acquire(self) -> None:
        """Take a slot, waiting for one if need be. A cancel point only where it waits."""
        if self.acquire_nowait():
            return
        waker = self._host.waker()
        ticket = _Ticket(waker.set)
        self._queue.append(ticket)
        try:
            await waker.wait()
        except BaseException:
            if ticket.granted:
                self.release()
            else:
                self._queue.remove(ticket)
            raise

    def acquire_nowait(self) -> bool:
        """Take a slot if one is free and nobody queues for it."""
        if self.running >= self.limit or self._queue:
            return False
        self.running += 1
        return True

    def acquire_then(self, granted: Callable[[], None]) -> None:
        """Take a slot for code that cannot await: `granted` is called once it is there."""
        if self.acquire_nowait():
            granted()
        else:
            self._queue.append(_Ticket(granted))

    def release(self) -> None:
        """Give the slot to the next in the queue, or back."""
        if self._queue:
            ticket = self._queue.popleft()
            ticket.granted = True
            ticket.grant()
        else:
            self.running -= 1

    def __repr__(self) -> str:
        return f"<Cap {self.running} of {self.limit} running, {len(self._queue)} queued>"


class _Ticket:
    __slots__ = ("grant", "granted")

    def __init__(self, grant: Callable[[], None]) -> None:
        self.grant = grant
        self.granted = False
