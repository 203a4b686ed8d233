"""Which host the calling code runs on."""

from __future__ import annotations

import asyncio

from asyncflow import clock
from asyncflow.engine.on_asyncio import AsyncioHost
from asyncflow.engine.tasks import Host


def running_host() -> Host:
    """The host of the running event loop.

    Raises:
        RuntimeError: If there is none.
    """
    if clock.in_trio():
        from asyncflow.engine.on_trio import TrioHost  # trio is there only where somebody runs it

        return TrioHost()
    try:
        return AsyncioHost(asyncio.get_running_loop())
    except RuntimeError:
        raise RuntimeError(
            "no event loop is running: await this inside `async def`, or call the synchronous door "
            "(run_sync, or .run() of a synchronous flow)"
        ) from None
