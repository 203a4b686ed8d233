"""A simulated provider in the same process: no socket, and time that may be virtual."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack

from asyncflow import clock
from asyncflow.http import LocalTransport
from asyncflow.testing.core import Core, Prepared
from asyncflow.testing.dialect import Dialect
from asyncflow.testing.faults import broken_body

#: Seconds after which an answer that never comes is given up, if nobody has given it up before.
HUNG = 3600.0


def local_transport(core: Core, dialects: Mapping[str, Dialect]) -> LocalTransport:
    """An httpx transport whose requests the core answers, on the current clock.

    A fault that never answers (`hang`, `stall`, `drip`) lasts until the client's timeout, on that clock too.
    """

    async def answer(
        method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes | AsyncGenerator[bytes, None]]:
        dialect = dialects.get(path)
        if dialect is None or method != "POST":
            return 404, {"content-type": "application/json"}, b'{"error": {"message": "no such address"}}'
        async with AsyncExitStack() as stack:
            prepared = await stack.enter_async_context(core.exchange(dialect, body, headers))
            if prepared.events:
                # The pieces hold the exchange open until the last of them is out.
                return prepared.status, prepared.headers, _pieces(core, prepared, stack.pop_all())
            if prepared.fault in ("hang", "stall", "drip"):
                await clock.sleep(HUNG)
                raise TimeoutError("simulated: no answer")
            if prepared.fault in ("reset", "close", "cut"):
                raise ConnectionResetError("simulated: the connection broke")
            if prepared.fault is not None:
                return 200, prepared.headers, broken_body(prepared.fault, prepared.body)
            return prepared.status, prepared.headers, prepared.body

    return LocalTransport(answer)


async def _pieces(core: Core, prepared: Prepared, stack: AsyncExitStack) -> AsyncGenerator[bytes, None]:
    async with stack:
        for event in prepared.events:
            yield event
            if core.seconds_per_token:
                await clock.sleep(core.seconds_per_token)
        if prepared.after == "stall":
            await clock.sleep(HUNG)
            raise TimeoutError("simulated: no more of the answer")
        if prepared.after == "cut":
            raise ConnectionResetError("simulated: the connection broke")
