"""An answer that is read while it comes."""

from __future__ import annotations

import math
from collections import deque
from contextlib import AsyncExitStack, suppress
from typing import Any

import anyio
import httpx

from asyncflow import clock, errors
from asyncflow.http import failures, hints
from asyncflow.http.body import read_whole
from asyncflow.http.coding import decoded
from asyncflow.http.lane import Ticket
from asyncflow.http.letting_go import start_here
from asyncflow.http.messages import BodyTooLargeError
from asyncflow.http.sse import Event, EventDecoder

#: Seconds to wait for the end of a body whose end mark has come.
DRAIN = 0.5


class Stream:
    """An open answer with a good status. Whoever has it closes it; what is unread then stays unread.

    Args:
        response: The answer; its body has not been read.
        leave: Closes the answer and leaves the lane.
        ticket: The lane's.
        deadline: When the attempt must be over, on asyncflow's clock.
        max_size_bytes: The largest event, and the largest body of `read_json`.
    """

    def __init__(
        self,
        response: httpx.Response,
        leave: AsyncExitStack,
        ticket: Ticket,
        deadline: float,
        max_size_bytes: int,
    ) -> None:
        self._response = response
        self.leave = leave
        self._pieces = decoded(response)
        self._decoder = EventDecoder()
        self._events: deque[Event] = deque()
        self._deadline = deadline
        self._max_size_bytes = max_size_bytes
        self.ticket = ticket
        self._start = start_here()

    @property
    def request_id(self) -> str | None:
        """The provider's name for the request, or None."""
        return hints.request_id(self._response.headers)

    @property
    def is_events(self) -> bool:
        """Whether the answer is a stream of events, as it should be, and not a whole."""
        return bool(self._response.headers.get("content-type", "").startswith("text/event-stream"))

    async def next_event(self) -> Event | None:
        """The next event, or None at the end of the body.

        Raises:
            HTTPError: If the connection breaks, nothing comes for `read` seconds, or the total is over.
        """
        while not self._events:
            left = self._deadline - clock.now()
            piece: bytes | None = None
            try:
                with anyio.move_on_after(max(0.0, left) if left < math.inf else None) as scope:
                    piece = await anext(self._pieces, None)
            except httpx.HTTPError as exc:
                raise failures.from_httpx(exc, self._response.request) from exc
            if left <= 0 or scope.cancelled_caught:
                raise failures.from_httpx(httpx.TimeoutException("total"), self._response.request)
            if piece is None:
                return None
            self._events.extend(self._decoder.feed(piece))
            if self._decoder.held > self._max_size_bytes:
                too_large = BodyTooLargeError(f"an event is more than {self._max_size_bytes} characters")
                raise failures.from_httpx(too_large, self._response.request)
        return self._events.popleft()

    async def read_json(self) -> Any:
        """The whole body as JSON, for a server that does not stream.

        Raises:
            HTTPError: As `next_event`.
        """
        try:
            whole = await read_whole(self._response, self._max_size_bytes, self._deadline)
        except httpx.HTTPError as exc:
            raise failures.from_httpx(exc, self._response.request) from exc
        answer = failures.json_of(whole)
        if isinstance(answer, dict) and answer.get("error"):
            raise failures.reported(whole, answer["error"])
        return answer

    async def drain(self) -> None:
        """Read what follows the end mark, nothing as a rule, so that the connection can be used again."""
        with anyio.move_on_after(DRAIN), suppress(httpx.HTTPError):
            while await anext(self._pieces, None) is not None:
                pass

    def bad_answer(self, why: str) -> errors.BadAnswerError:
        """An answer that is not what was promised."""
        return failures.bad_answer(self._response, why)

    def reported(self, error: Any) -> errors.HTTPError:
        """A failure that an event tells of."""
        return failures.reported(self._response, error)

    def drop(self) -> None:
        """Close the answer soon, on its own loop: for a stream that nobody holds any more."""
        self._start(self.aclose)

    async def aclose(self, error: BaseException | None = None) -> None:
        """Close the answer, and leave the lane with the error that ended it, if one did."""
        with anyio.CancelScope(shield=True):
            if error is None:
                await self.leave.aclose()
            else:
                await self.leave.__aexit__(type(error), error, error.__traceback__)
            with suppress(RuntimeError):  # another task still reads: it hears of the end by itself
                await self._pieces.aclose()
