"""`LLMClient`: one call to a model, done well."""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from asyncflow.errors import NotSupportedError
from asyncflow.http import HTTPClient, HTTPXClient, Lane, SlotLane, Timeouts
from asyncflow.http.client import RETRY
from asyncflow.llm.ask import Ask, Prompt, messages_of
from asyncflow.llm.completion import Completion, Usage
from asyncflow.llm.openai import OpenAI
from asyncflow.llm.provider import Provider
from asyncflow.policy.retry import Retry

_PROVIDERS: dict[str, type[Provider]] = {"openai": OpenAI}


@dataclass(frozen=True, slots=True)
class LLMStatistics:
    """What a client has done so far.

    Attributes:
        calls: Calls that have ended, well or not.
        failed: Those that ended with an error.
        running: Calls under way now.
        attempts: Requests that went over the wire.
        refused: Attempts answered with 429.
        usage: Tokens of all answers together.
    """

    calls: int = 0
    failed: int = 0
    running: int = 0
    attempts: int = 0
    refused: int = 0
    usage: Usage = field(default_factory=Usage)


class LLMClient:
    """Asks one model, with retries, finite timeouts and usage, through a connection per call under way.

    An async context manager. One client serves any number of concurrent calls of one event loop.

    Args:
        model: The model's name, as the provider writes it.
        provider: `"openai"` for OpenAI and everything that speaks its chat protocol, by `base_url`.
        base_url: As the provider's own SDK takes it: with `/v1` for OpenAI. Where it is None, the variable
            `OPENAI_BASE_URL` is read, once, here; else the provider's own address counts.
        api_key: Where it is None, the variable `OPENAI_API_KEY` is read, once, here. `""` sends no key, as
            many local servers like it. The key appears in no error, `repr`, log or event.
        concurrency: Calls on the wire at once; None leaves it to whoever calls (`amap`, a node).
        limits: A `Lane` that attempts wait in, instead of `concurrency`.
        timeout: `Timeouts`, or seconds for one attempt as a whole. None: the defaults, all finite.
        retry: What is repeated; None repeats nothing. A 429 has attempts of its own. The error of a call
            that was allowed to repeat has `exhausted` set, so a node does not multiply its attempts.
        http: An `httpx.AsyncClient` of your own to send through; it stays open.

    Raises:
        ValueError: If there is neither a key nor a base URL, or the provider is unknown.

    Example:
        >>> async def translate(texts):
        ...     async with LLMClient("gpt-5-mini", base_url="http://127.0.0.1:8000/v1", api_key="") as llm:
        ...         return [(await llm.complete(f"To French: {text}")).text for text in texts]
    """

    def __init__(
        self,
        model: str,
        *,
        provider: str = "openai",
        base_url: str | None = None,
        api_key: str | None = None,
        concurrency: int | str | None = None,
        limits: Lane | None = None,
        timeout: Timeouts | float | None = None,
        retry: Retry | None = RETRY,
        http: HTTPXClient | None = None,
    ) -> None:
        if provider not in _PROVIDERS:
            raise ValueError(f"provider={provider!r}: it is one of {', '.join(map(repr, _PROVIDERS))}")
        self._provider: Provider = _PROVIDERS[provider]()
        self.model = model
        given = base_url if base_url is not None else os.environ.get(self._provider.url_variable)
        self.base_url = (given or self._provider.default_base_url).rstrip("/")
        key = api_key if api_key is not None else os.environ.get(self._provider.key_variable)
        if key is None and self.base_url == self._provider.default_base_url:
            raise ValueError(
                f"LLMClient({model!r}): no API key for {self.base_url}. Pass api_key=, or set "
                f"{self._provider.key_variable}; for a server of your own pass base_url= (and api_key='')"
            )
        self._http = HTTPClient(timeout=timeout, retry=retry, lane=_lane(concurrency, limits), client=http)
        self._complete = self._http.endpoint(
            "POST",
            self.base_url + self._provider.path(),
            headers={"content-type": "application/json", **self._provider.headers((key or "").strip())},
        )
        self._usage = Usage()
        self._name = f"asyncflow-{secrets.token_hex(16)}"
        self._numbers = itertools.count(1)

    async def complete(
        self,
        prompt: Prompt,
        *,
        system: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        stop: str | Sequence[str] = (),
        tools: Sequence[Mapping[str, Any]] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> Completion:
        """Ask the model, and return its whole answer.

        Args:
            prompt: Text, or messages such as `{"role": "user", "content": "…"}`. Content parts (images)
                are passed through in the provider's own form.
            system: The system text.
            max_tokens: The longest answer.
            temperature: The provider's own where it is None.
            stop: A text, or several, that end the answer.
            tools: In the provider's own form.
            extra: Fields added to the request as they are; they win over ours.

        Raises:
            HTTPError: Of the class that says what happened: `RateLimitedError`, `ServerError`,
                `AccessDeniedError`, `RequestTooLargeError`, `BadAnswerError`, …

        Can be cancelled anywhere; what is on the wire is cut off.
        """
        ask = Ask(
            self.model,
            messages_of(prompt),
            system,
            max_tokens,
            temperature,
            (stop,) if isinstance(stop, str) else tuple(stop),
            tuple(tools),
            extra=extra,
        )
        return await self._ask(ask)

    def statistics(self) -> LLMStatistics:
        """What the client has done so far."""
        http = self._http.statistics()
        return LLMStatistics(http.calls, http.failed, http.running, http.attempts, http.refused, self._usage)

    async def aclose(self) -> None:
        """Close the connections. Safe to call twice."""
        await self._http.aclose()

    async def __aenter__(self) -> LLMClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        now = self._http.statistics()
        return (
            f"<LLMClient {self.model!r} {self._provider.name} {self._complete.place} "
            f"running={now.running} calls={now.calls}>"
        )

    def _ask(self, ask: Ask) -> Coroutine[Any, Any, Completion]:
        return self._complete.send(
            self._provider.body(ask, self.base_url),
            headers={"idempotency-key": f"{self._name}-{next(self._numbers)}"},  # per call, not per attempt
            read=self._read,
            used=_tokens,
        )

    def _read(self, answer: Any, request_id: str | None) -> Completion:
        completion = self._provider.completion(answer, request_id)
        self._usage += completion.usage
        return completion


def _tokens(completion: Completion) -> int:
    return completion.usage.total_tokens


def _lane(concurrency: int | str | None, limits: Lane | None) -> Lane | None:
    if limits is not None and concurrency is not None:
        raise ValueError("concurrency= and limits= both bound the calls: give one")
    if isinstance(concurrency, str):
        raise NotSupportedError(
            f"concurrency={concurrency!r}: a limit that finds itself is not built yet; give a number, or "
            "None to leave it to the caller"
        )
    return SlotLane(concurrency) if concurrency is not None else limits
