"""Closing what nobody holds any more: the end may come on any thread, the closing belongs to one loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeAlias

from asyncflow.clock import in_trio

#: Runs a coroutine function on the event loop that it belongs to, and does not wait for it.
Start: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


def start_here() -> Start:
    """What starts coroutines on the event loop that runs now, from wherever it is called later.

    Where the loop has ended nothing happens: its connections ended with it.

    Example:
        >>> async def main():
        ...     ended = asyncio.Event()
        ...     async def close():
        ...         ended.set()
        ...     start_here()(close)
        ...     await ended.wait()
        >>> asyncio.run(main())
    """
    if in_trio():
        import trio

        token = trio.lowlevel.current_trio_token()

        def on_trio(close: Callable[[], Coroutine[Any, Any, None]]) -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(trio.lowlevel.spawn_system_task, close)

        return on_trio
    loop = asyncio.get_running_loop()

    def on_asyncio(close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(lambda: loop.create_task(close()))

    return on_asyncio
