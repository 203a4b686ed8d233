"""Where items come from: anything that can be iterated, pulled one at a time, and closed at the end.

There are three ways to pull. A collection answers at once, so it is asked on the spot. An async iterator
is awaited. A plain iterator in front of plain calls on threads may block (a file, `pandas.read_csv` with
`chunksize`), so on an event loop it is asked on a thread.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable, Iterator
from types import GeneratorType
from typing import Any

from asyncflow.engine.tasks import Host
from asyncflow.threads import ThreadPool

#: What `pull` returns when there is nothing left. (StopIteration cannot cross a coroutine or a thread.)
END = object()

#: The usual collections, which need no look at what they can do.
_PLAIN = (list, tuple, range)


class Source:
    """An opened source of items.

    Attributes:
        length: How many items there are, or None where that is not known.
        next: Asks for the next item on the spot; raises StopIteration at the end. None where asking
            may wait: then `pull` is the way.
    """

    __slots__ = ("_async", "_host", "_iterator", "_threads", "length", "next")

    def __init__(self, items: Any, *, host: Host, blocking: bool) -> None:
        self.length = length_of(items)
        self.next: Callable[[], Any] | None = None
        self._host = host
        self._async: AsyncIterator[Any] | None = None
        self._iterator: Iterator[Any] | None = None
        self._threads: ThreadPool | None = None
        if self.length is None:
            _warn_if_spent(items)
        if self.length is None and isinstance(items, AsyncIterable):
            self._async = aiter(items)
            return
        self._iterator = iter(items)
        if blocking and self.length is None and not host.blocking:
            self._threads = ThreadPool(1)
        else:
            self.next = self._iterator.__next__

    async def pull(self) -> Any:
        """The next item, or END. One call at a time. Cancelling waits for a thread that is asking."""
        if self._async is not None:
            try:
                return await anext(self._async)
            except StopAsyncIteration:
                return END
        iterator = self._iterator
        assert iterator is not None
        if self._threads is None:
            return next(iterator, END)
        return await on_thread(self._host, self._threads, lambda: next(iterator, END))

    async def aclose(self) -> None:
        """Close the iterator if it can be closed; a file that the user opened is left to the user."""
        if self._async is not None:
            close = getattr(self._async, "aclose", None)
            if close is not None:
                await close()
            return
        close = getattr(self._iterator, "close", None)
        if close is None or isinstance(self._iterator, io.IOBase):
            return
        if self._threads is None:
            close()
        else:
            await on_thread(self._host, self._threads, close)


def length_of(items: Any) -> int | None:
    """How many items there are, or None where that is not known."""
    if type(items) not in _PLAIN and not isinstance(items, Collection):
        return None
    try:
        return len(items)
    except TypeError:  # a tqdm bar around a generator has a __len__ without an answer
        return None


def _warn_if_spent(items: Any) -> None:
    """Say so where a generator was read to its end before: it has no items, and nobody would notice."""
    frame = "gi_frame" if isinstance(items, GeneratorType) else "ag_frame"
    if getattr(items, frame, items) is None:
        warnings.warn(
            f"the generator {items.__name__} has been read to its end before, so it gives no items; make a "
            "new one for each run",
            RuntimeWarning,
            stacklevel=2,
        )


def check_items(items: Any, what: str) -> None:
    """Refuse, before anything runs, what cannot be a source.

    Raises:
        TypeError: If `items` cannot be iterated, or is one text or table.
    """
    if isinstance(items, (str, bytes, bytearray)):
        raise TypeError(
            f"{what} is one {type(items).__name__}, which would run character by character; "
            f"put it into a list: [{items[:20]!r}]"
        )
    refuse_table(items, what)
    kind = isinstance(items, type)
    if kind or (not isinstance(items, (Iterable, AsyncIterable)) and not hasattr(items, "__getitem__")):
        raise TypeError(
            f"{what} must be something to iterate over (a list, a generator, an async generator), "
            f"not {f'the class {items.__name__}' if kind else f'{type(items).__name__}: {items!r}'}"[:300]
        )


def refuse_table(items: Any, what: str) -> None:
    """Refuse a table of pandas or polars: to iterate over it gives columns, and rows are meant.

    Raises:
        TypeError: If `items` is one.
    """
    if type(items).__name__ == "DataFrame":
        raise TypeError(
            f"{what} is a DataFrame, which would run column by column; its rows are frame.itertuples(), or "
            "frame.to_dict('records')"
        )


async def on_thread(host: Host, threads: ThreadPool, function: Callable[[], Any]) -> Any:
    """Run `function()` on a thread. Cancelling waits until it has ended."""
    waker = host.waker()
    job = threads.submit(function, done=lambda _: host.from_thread(waker.set))
    try:
        await waker.wait()
    except BaseException:
        if not job.withdraw():
            await host.outlast(waker)
        raise
    if job.error is not None:
        raise job.error
    return job.value
