"""An aiohttp application on loopback, in the running event loop or on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from aiohttp import web


class Server:
    """Serves an application on 127.0.0.1, on a free port.

    Args:
        make: Makes the application; called in the loop that serves it.
    """

    def __init__(self, make: Callable[[], web.Application]) -> None:
        self._make = make
        self._runner: web.AppRunner | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.port = 0

    async def open(self, port: int = 0) -> None:
        """Serve in the running event loop."""
        runner = web.AppRunner(self._make(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port, backlog=4096)
        try:
            await site.start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        self.port = runner.addresses[0][1]

    async def aclose(self) -> None:
        """Stop serving; requests under way are cut off."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def open_in_thread(self, port: int = 0) -> None:
        """Serve on a thread; returns once the port is open."""
        opened = threading.Event()
        failure: list[BaseException] = []

        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            self._stop = asyncio.Event()
            try:
                await self.open(port)
            except BaseException as exc:
                failure.append(exc)
                return
            finally:
                opened.set()
            await self._stop.wait()
            await self.aclose()

        self._thread = threading.Thread(
            target=lambda: asyncio.run(serve()), name="asyncflow-simulated-provider", daemon=True
        )
        self._thread.start()
        opened.wait()
        if failure:
            raise failure[0]

    def close_thread(self) -> None:
        """Stop the thread and wait for it."""
        thread, self._thread = self._thread, None
        if thread is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            thread.join()
