"""What can go wrong with an answer, on purpose: scripted for the first requests, or at random by a seed."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TypeAlias

from aiohttp import web

#: A status, or one of `KINDS`.
Fault: TypeAlias = "int | str"

#: What each fault does.
KINDS = {
    "hang": "takes the request and never answers",
    "stall": "sends the headers and then nothing; in a stream, half of it and then nothing",
    "drip": "sends a byte of the answer each 20 ms",
    "reset": "closes with RST, before any answer",
    "close": "closes without an answer",
    "cut": "closes in the middle of the answer",
    "no_end": "ends a stream without its end; elsewhere as `cut`",
    "error_event": "breaks a stream off with an error event; elsewhere status 500",
    "refused_event": "breaks a stream off with an event that refuses it for now; elsewhere status 429",
    "refused_first": "the same, before any text of the answer",
    "overloaded_event": "breaks a stream off with an event of an overloaded server; elsewhere status 529",
    "overloaded_first": "the same, before any text of the answer",
    "too_long": "refuses the request as longer than the model reads (status 400)",
    "no_credit": "refuses the request because the account has no credit left (status 429)",
    "html": "answers 200 with an HTML page",
    "invalid_json": "answers 200 with half of a JSON text",
    "empty": "answers 200 with an empty body",
    "no_answer": "answers 200 with JSON that is no answer (`choices: []`)",
}

#: Faults that are refusals of the provider's own: status, text and code.
REFUSALS = {
    "too_long": (400, "This model's maximum context length is 8192 tokens", "context_length_exceeded"),
    "no_credit": (429, "You exceeded your current quota, please check your plan", "insufficient_quota"),
}

_FAILED = (500, "The server had an error while processing your request", None)
_REFUSED = (429, "Rate limit reached for requests. Please try again in 20ms", "rate_limit_exceeded")
_OVERLOADED = (529, "Overloaded", None)

#: Faults that break a stream off with an event: the status that it stands for, its text and its code.
EVENTS: dict[str, tuple[int, str, str | None]] = {
    "error_event": _FAILED,
    "refused_event": _REFUSED,
    "refused_first": _REFUSED,
    "overloaded_event": _OVERLOADED,
    "overloaded_first": _OVERLOADED,
}


class FaultPlan:
    """Which request meets which fault.

    Args:
        shares: Fault -> share of requests, in [0, 1]; together at most 1.
        script: Faults of the first requests, in the order they come; None leaves one alone.
        seed: For the shares. Which requests are hit depends on it, on their content and on how often they
            came before, and not on their order.

    Raises:
        ValueError: If a fault is unknown, or the shares are no shares.
    """

    def __init__(self, shares: Mapping[Fault, float], script: Iterable[Fault | None], seed: int) -> None:
        self._shares = dict(shares)
        self._script = list(script)
        self._seed = seed
        for fault in (*self._shares, *(one for one in self._script if one is not None)):
            known = fault in KINDS if isinstance(fault, str) else 400 <= fault <= 599
            if not known:
                raise ValueError(f"fault {fault!r}: a status from 400 to 599, or one of {', '.join(KINDS)}")
        if any(not 0 <= share <= 1 for share in self._shares.values()) or sum(self._shares.values()) > 1:
            raise ValueError(
                f"faults={self._shares!r}: shares lie in [0, 1], and together they are at most 1"
            )

    def fault_of(self, index: int, digest: bytes, occurrence: int) -> Fault | None:
        """The fault that this request meets, or None."""
        if index < len(self._script):
            return self._script[index]
        if not self._shares:
            return None
        drawn = random.Random(b"fault|%d|%d|" % (self._seed, occurrence) + digest).random()
        for fault, share in self._shares.items():
            if drawn < share:
                return fault
            drawn -= share
        return None


def broken_body(fault: str, body: bytes) -> bytes:
    """What comes with status 200 instead of the right body."""
    return {
        "html": b"<html><head><title>Gateway</title></head><body><h1>Please sign in</h1></body></html>",
        "invalid_json": body[: len(body) // 2],
        "empty": b"",
        "no_answer": b'{"choices": []}',
    }[fault]


async def play(fault: str, request: web.Request, body: bytes) -> web.StreamResponse:
    """Answer a request in the way the fault says; `body` is what the right answer would have been."""
    transport = request.transport
    if fault == "hang":
        await asyncio.Event().wait()
    if fault in ("reset", "close"):
        if transport is not None and fault == "reset":
            with suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            transport.abort()
        elif transport is not None:
            transport.close()
        return web.Response()
    if fault in ("html", "invalid_json", "empty", "no_answer"):
        kind = "text/html" if fault == "html" else "application/json"
        return web.Response(body=broken_body(fault, body), content_type=kind)
    response = web.StreamResponse(
        headers={"Content-Length": str(len(body)), "Content-Type": "application/json"}
    )
    await response.prepare(request)
    if fault == "drip":
        for place in range(len(body)):
            await response.write(body[place : place + 1])
            await asyncio.sleep(0.02)
        return response
    if fault == "stall":
        await asyncio.Event().wait()
    await response.write(body[: len(body) // 2])  # cut
    if transport is not None:
        transport.close()
    return response
