"""One address that takes JSON and gives JSON, with what all its calls share prepared beforehand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from asyncflow.http import failures, hints
from asyncflow.http.body import encode_json
from asyncflow.http.call import Call, Meter, Target
from asyncflow.http.stream import Stream

if TYPE_CHECKING:
    from asyncflow.http.client import HTTPClient  # which makes endpoints, so it is above

T = TypeVar("T")


class UnusableAnswerError(ValueError):
    """What `read` raises where the JSON is not the answer it should be; becomes a `BadAnswerError`."""


class Endpoint:
    """What `HTTPClient.endpoint` returns."""

    __slots__ = ("_advice", "_client", "_target")

    def __init__(
        self,
        client: HTTPClient,
        method: str,
        url: str,
        headers: httpx.Headers,
        advice: Mapping[int, str] | None = None,
    ) -> None:
        self._client = client
        self._advice = advice
        headers.encoding = "utf-8"  # said once, else httpx works it out at every look
        self._target = Target(method, httpx.URL(url), headers)

    @property
    def place(self) -> str:
        """The address without credentials."""
        return failures.plain_url(self._target.url)

    def send(
        self,
        body: Any,
        *,
        headers: Mapping[str, str] | None = None,
        read: Callable[[Any, str | None], T],
        meter: Meter | None = None,
    ) -> Coroutine[Any, Any, T]:
        """One call, repeated as the client's rules say; it may arrive twice. To be awaited.

        Args:
            body: Sent as JSON.
            headers: For this call, besides the prepared ones.
            read: Takes the answer's JSON and its request id, gives the result. An `UnusableAnswerError`
                from it counts as a bad answer, which is asked for again.
            meter: Guesses the tokens before the call and learns from the result, for the lane.

        Raises:
            HTTPError: Of the class that says what happened.
        """
        return self._client.call(self._call(body, headers, meter), partial(_read_json, read))

    def open(
        self,
        body: Any,
        begin: Callable[[Stream], Awaitable[T]],
        *,
        headers: Mapping[str, str] | None = None,
        meter: Meter | None = None,
    ) -> Coroutine[Any, Any, tuple[Stream, T]]:
        """As `send`, for an answer that is read while it comes. To be awaited.

        Args:
            body, headers, meter: As in `send`.
            begin: Reads the stream's beginning. What it raises ends the attempt; later failures are not
                repeated, because their answer has been given out in part.
        """
        headers = {"accept": "text/event-stream", **(headers or {})}
        return self._client.open(self._call(body, headers, meter), begin)

    def _call(self, body: Any, headers: Mapping[str, str] | None, meter: Meter | None) -> Call:
        return Call(
            self._target,
            encode_json(body),
            headers,
            self._client.timeouts,
            repeatable=True,
            keep_method=True,
            meter=meter,
            advice=self._advice,
        )


def _read_json(read: Callable[[Any, str | None], T], response: httpx.Response) -> T:
    answer = failures.json_of(response)
    if isinstance(answer, dict) and answer.get("error"):
        raise failures.reported(response, answer["error"])
    try:
        return read(answer, hints.request_id(response.headers))
    except UnusableAnswerError as exc:
        raise failures.bad_answer(response, str(exc)) from None
