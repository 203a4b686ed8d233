"""`TextStream`: an answer that is read while the model writes it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from asyncflow.errors import HTTPError
from asyncflow.http import Event, Stream, UnusableAnswerError
from asyncflow.llm.completion import Completion
from asyncflow.llm.provider import Piece, Provider
from asyncflow.llm.received import Received

#: Opens the stream: takes what reads its beginning, gives the stream and the first text.
Open = Callable[[Callable[[Stream], Awaitable[str]]], Awaitable[tuple[Stream, str]]]


class TextStream:
    """Yields the pieces of an answer's text; afterwards `completion` holds all of it.

    An async iterator and an async context manager. Nothing is sent before the first piece is asked for. Until
    the first piece is there a failure is repeated as the client's rules say; after it the error is raised,
    because part of the answer has been given out, and its text says how much. Leaving early (`aclose`, the
    end of `async with`) closes the connection, so the provider stops writing; so does letting go of the
    stream, a little later.

    Raises:
        HTTPError: `HTTPConnectionError` where the stream is cut, `BadAnswerError` where it ends before the
            answer does, `ServerError` and its kin where an event tells of a failure.
        BudgetSpentError: Before anything is sent, where `max_cost` leaves no room for it.
    """

    def __init__(
        self,
        provider: Provider,
        open_stream: Open,
        received: Received,
        priced: Callable[[Completion], Completion],
    ) -> None:
        self._provider = provider
        self._open = open_stream
        self._received = received
        self._priced = priced
        self._stream: Stream | None = None
        self._opened = False
        self._finish_reason: str | None = None
        self._model = ""
        self._ended = self._refused = False
        self._whole: Completion | None = None
        self._completion: Completion | None = None

    @property
    def completion(self) -> Completion:
        """The whole answer, once the last piece has been read.

        Raises:
            RuntimeError: If it has not.
        """
        if self._completion is None:
            raise RuntimeError("the stream has not been read to its end, so there is no whole answer")
        return self._completion

    def __aiter__(self) -> TextStream:
        return self

    async def __anext__(self) -> str:
        try:
            if not self._opened:
                self._opened = True
                self._stream, text = await self._open(self._begin)
            elif self._stream is None:
                raise StopAsyncIteration
            else:
                text = await self._next(self._stream)
            if text:
                self._received.texts.append(text)
                return text
            await self._end()
        except (StopAsyncIteration, GeneratorExit):
            raise
        except BaseException as exc:
            came = sum(map(len, self._received.texts))
            if came and isinstance(exc, HTTPError):
                exc.args = (f"{exc} (after {came} characters of the answer, which were given out)",)
            await self.aclose(exc)
            raise
        raise StopAsyncIteration

    async def aclose(self, error: BaseException | None = None) -> None:
        """Stop reading and close the connection. Safe to call twice."""
        self._opened = True
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose(error)

    def __del__(self) -> None:
        stream = getattr(self, "_stream", None)
        if stream is not None:  # left in the middle, without `async with`
            stream.drop()

    async def __aenter__(self) -> TextStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _begin(self, stream: Stream) -> str:
        """The first text: a new attempt starts from nothing."""
        self._received.begin(stream)
        self._finish_reason, self._whole = None, None
        self._ended = self._refused = False
        if stream.is_events:
            return await self._next(stream)
        try:
            self._whole = self._provider.completion(await stream.read_json(), stream.request_id)
        except UnusableAnswerError as exc:
            raise stream.bad_answer(str(exc)) from None
        self._ended = True
        return self._whole.text

    async def _next(self, stream: Stream) -> str:
        """The next text, or `""` at the end of the answer."""
        while not self._ended:
            event = await stream.next_event()
            if event is None:
                if self._finish_reason is None:
                    raise stream.bad_answer("the stream ended before the answer did")
                break
            piece = self._piece(stream, event)
            if piece.error is not None:
                raise stream.reported(piece.error)
            self._take(piece)
            if piece.text:
                return piece.text
        if self._finish_reason is None and self._whole is None and not self._received.texts:
            raise stream.bad_answer("the stream ended without an answer")
        return ""

    def _piece(self, stream: Stream, event: Event) -> Piece:
        try:
            data: Any = event.data if event.data == "[DONE]" else json.loads(event.data)
            return self._provider.piece(event.name, data)
        except UnusableAnswerError as exc:
            raise stream.bad_answer(str(exc)) from None
        except (ValueError, RecursionError):
            raise stream.bad_answer(f"an event of the stream is not JSON: {event.data[:100]!r}") from None

    def _take(self, piece: Piece) -> None:
        self._finish_reason = piece.finish_reason or self._finish_reason
        self._model = piece.model or self._model
        self._ended = self._ended or piece.end
        self._refused = self._refused or piece.refused
        if piece.usage is not None:
            self._received.take(piece.usage)

    async def _end(self) -> None:
        if self._completion is None and self._stream is not None:
            whole = self._whole or Completion(
                text="".join(self._received.texts),
                usage=self._received.usage,
                finish_reason="content_filter" if self._refused else self._finish_reason or "stop",
                model=self._model,
                request_id=self._stream.request_id,
            )
            self._received.usage, self._received.whole = whole.usage, True
            self._completion = self._priced(whole)
            if self._stream.is_events:
                await self._stream.drain()
        await self.aclose()
