"""One pass over the data: batches in order, a few of them gathered ahead on threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import anyio.lowlevel

from asyncflow.compute.calls import Call, library

_END = object()


@dataclass(slots=True)
class Position:
    """How far an epoch has been received; what is only prefetched does not count.

    Attributes:
        epoch: Which epoch it is, from 0.
        samples: How many samples have been received.
        batches: How many batches have been received.
    """

    epoch: int
    samples: int = 0
    batches: int = 0


class Epoch:
    """An iterator, for `for` and for `async for`, over the batches of one epoch.

    Batches come in order, however many threads gather them.

    Attributes:
        position: How far it has been received; the loader keeps it too, and does not keep the iterator.
    """

    def __init__(
        self,
        position: Position,
        plan: Iterator[tuple[int, int, int]],
        gather: Callable[[int, int, int], Any],
        *,
        ahead: int,
        size_of: Callable[[int], int],
        bytes_ahead: int | None,
        finished: Callable[[], None],
    ) -> None:
        self.position = position
        self._plan, self._gather, self._finished = plan, gather, finished
        self._ahead, self._size_of, self._bytes_ahead = ahead, size_of, bytes_ahead
        self._calls: deque[tuple[Call, int, int]] = deque()
        self._next: tuple[int, int, int] | None = next(plan, None)
        self._bytes = 0
        self._closed = False

    def __iter__(self) -> Epoch:
        return self

    def __aiter__(self) -> Epoch:
        return self

    def __next__(self) -> Any:
        if self._ahead == 0:
            if self._next is None or self._closed:
                self._end()
                raise StopIteration
            batch, stop = self._gather(*self._next), self._next[2]
            self._next = next(self._plan, None)
            self._received(stop)
            return batch
        self._fill(self._ahead)
        if not self._calls:
            self._end()
            raise StopIteration
        call, stop, size = self._calls[0]
        try:
            batch = call.result()
        except BaseException:
            self._again()
            raise
        self._calls.popleft()
        self._bytes -= size
        self._fill(self._ahead)
        self._received(stop)
        return batch

    async def __anext__(self) -> Any:
        """The next batch. Can be cancelled before it is handed over; it is then the next one again."""
        if library() is None:  # the source of a synchronous flow's node
            batch = next(self, _END)
            if batch is _END:
                raise StopAsyncIteration
            return batch
        # A loop over batches that are all there must still let others run. Nothing is received yet.
        await anyio.lowlevel.checkpoint()
        ahead = max(1, self._ahead)
        self._fill(ahead)
        if not self._calls:
            self._end()
            raise StopAsyncIteration
        call, stop, size = self._calls[0]
        try:
            batch = await call.result_async()
        except BaseException:
            self._again()
            raise
        self._calls.popleft()
        self._bytes -= size
        self._fill(self._ahead)
        self._received(stop)
        return batch

    def close(self) -> None:
        """End the epoch early: what is not yet gathered is not gathered."""
        self._closed = True
        for call, _, _ in self._calls:
            call.drop()
        self._calls.clear()
        self._next = None

    async def aclose(self) -> None:
        """The same, for `contextlib.aclosing`."""
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_calls", None):
            self.close()

    def _fill(self, ahead: int) -> None:
        while self._next is not None and len(self._calls) < ahead:
            number, start, stop = self._next
            size = self._size_of(stop - start)
            if self._calls and self._bytes_ahead is not None and self._bytes + size > self._bytes_ahead:
                return
            self._calls.append((Call(self._gather, number, start, stop), stop, size))
            self._bytes += size
            self._next = next(self._plan, None)

    def _again(self) -> None:
        """After a wait that failed: whatever was under way is asked for again, from what was received on."""
        for call, _, _ in self._calls:
            call.drop()
        waiting = [(stop, size) for _, stop, size in self._calls]
        self._calls.clear()
        start, number = self.position.samples, self.position.batches
        for stop, size in waiting:
            self._calls.append((Call(self._gather, number, start, stop), stop, size))
            start, number = stop, number + 1

    def _received(self, stop: int) -> None:
        self.position.samples, self.position.batches = stop, self.position.batches + 1

    def _end(self) -> None:
        if not self._closed:
            self._closed = True
            self._finished()

    def __repr__(self) -> str:
        return f"<Epoch {self.position}, {len(self._calls)} batches ahead>"
