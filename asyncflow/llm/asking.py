"""From a question to an answer: the call, the form it must have, what is used again, what it cost."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from asyncflow.errors import ModelOutputError, RequestRefusedError
from asyncflow.http import Endpoint, HTTPClient, Stream, UnusableAnswerError
from asyncflow.http.body import encode_json
from asyncflow.llm.ask import Ask
from asyncflow.llm.cache import Coalescer
from asyncflow.llm.completion import Completion, Usage
from asyncflow.llm.embeddings import Embeddings, vectors_of
from asyncflow.llm.form import Form, WrongFormError
from asyncflow.llm.in_words import has_no_mode, in_words
from asyncflow.llm.kept import Kept, key_for
from asyncflow.llm.open_streams import OpenStreams
from asyncflow.llm.parts import not_text
from asyncflow.llm.price import Price
from asyncflow.llm.provider import Provider
from asyncflow.llm.reask import reask
from asyncflow.llm.received import Received
from asyncflow.llm.spending import CallMeter, EmbeddingMeter, Spending, most_written
from asyncflow.llm.stream import TextStream
from asyncflow.policy.budget import Reservation
from asyncflow.policy.lane import RateLane
from asyncflow.policy.tokens import TokenEstimate
from asyncflow.waiting import spent

T = TypeVar("T")
M = TypeVar("M", bound=CallMeter)


class Asking:
    """What stands behind an `LLMClient`.

    Attributes:
        usage: Tokens of all answers so far, unusable ones included.
        reused, reasked: How often so far.
    """

    def __init__(
        self,
        provider: Provider,
        base_url: str,
        endpoint: Endpoint,
        price: Price | None,
        kept: Kept,
        coalesce: bool,
        http: HTTPClient,
        spending: Spending | None,
    ) -> None:
        self._provider = provider
        self._base_url = base_url
        self._endpoint = endpoint
        self._price = price
        self._http = http
        self._spending = spending
        self._estimate: TokenEstimate | None = None
        self._kept = kept
        self._coalescer: Coalescer[Completion] | None = Coalescer() if coalesce else None
        self._name = f"asyncflow-{secrets.token_hex(16)}"
        self._numbers = itertools.count(1)
        self._streams = OpenStreams()
        self.usage = Usage()
        self.reused = self.reasked = 0
        self._in_words = False  # whether this server, or this model, has no mode for a form

    def cost(self, usage: Usage) -> float | None:
        """What these tokens cost, or None where there is no price, or nobody told of any."""
        if self._price is None or not (usage.reported or usage.total_tokens):
            return None
        return self._price.of(usage)

    def answer(
        self, ask: Ask, form: Form | None, reasks: int, sample: int = 0
    ) -> Coroutine[Any, Any, Completion]:
        """The answer, of the form if there is one. To be awaited."""
        if self._kept.cache is not None or self._coalescer is not None:
            return self._once(ask, form, reasks, sample)
        return self._fresh(ask, form, reasks)

    def stream(self, ask: Ask) -> TextStream:
        """The answer piece by piece."""
        body = self._provider.body(ask, self._base_url)
        meter = self._meter(CallMeter, body, most_written(body))
        money = meter.money
        received = Received(meter, len(encode_json(body)), partial(self._spend, meter))

        async def open_stream(begin: Callable[[Stream], Awaitable[str]]) -> tuple[Stream, str]:
            async with AsyncExitStack() as stack:
                if money is not None:
                    await stack.enter_async_context(money)
                opened = await self._endpoint.open(body, begin, headers=self._call_headers(), meter=meter)
                stack.pop_all()  # what is left of the money is given back when the stream is left
            received.release = self._held(money)
            return opened

        return TextStream(self._provider, open_stream, received, self._priced)

    async def embed(self, endpoint: Endpoint, body: Mapping[str, Any]) -> Embeddings:
        """The vectors of one request."""
        meter = self._meter(EmbeddingMeter, body, 0)

        def read(answer: Any, request_id: str | None) -> Embeddings:
            usage = self._provider.usage(answer)
            self._spend(meter, usage)
            vectors = vectors_of(answer, len(body["input"]))
            return Embeddings(vectors, usage, self.cost(usage), str(answer.get("model") or body["model"]))

        send = partial(endpoint.send, body, headers=self._call_headers(), read=read, meter=meter)
        return await _within(meter.money, send)

    def _fresh(self, ask: Ask, form: Form | None, reasks: int) -> Coroutine[Any, Any, Completion]:
        return self._send(ask) if form is None else self._in_form(ask, form, reasks)

    def _send(self, ask: Ask) -> Coroutine[Any, Any, Completion]:
        body = self._provider.body(ask, self._base_url)
        meter = self._meter(CallMeter, body, most_written(body))
        read = partial(self._read, meter)
        send = partial(self._endpoint.send, body, headers=self._call_headers(), read=read, meter=meter)
        return send() if meter.money is None else _within(meter.money, send)

    def _meter(self, kind: type[M], body: Any, max_tokens: int | None) -> M:
        """The meter of a call, with the reservation of its money where there is a budget."""
        money, longer = None, not_text(body)
        if self._spending is not None:
            money = self._spending.reserve(self.estimate, len(encode_json(body)) - longer, max_tokens)
        lane = self._http.lane
        limit = lane.limit if isinstance(lane, RateLane) else None
        self._streams.check(limit, None if self._spending is None else self._spending.budget, money)
        return kind(self.estimate, max_tokens, money, self._lose, longer)

    def _held(self, money: Reservation | None) -> Callable[[], None]:
        """The current task holds a stream; to be called when it is left."""
        closed = self._streams.opened()

        def left() -> None:
            closed()
            if money is not None:
                money.end()

        return left

    @property
    def estimate(self) -> TokenEstimate:
        """What calls turn out to use: the lane's where it has one, so that clients of one lane share it."""
        if self._estimate is None:
            lane = self._http.lane
            self._estimate = lane.estimate if isinstance(lane, RateLane) else TokenEstimate()
        return self._estimate

    def _call_headers(self) -> dict[str, str]:
        # One per call and not per attempt: the provider sees a repeated attempt as the same.
        return {"idempotency-key": f"{self._name}-{next(self._numbers)}"}

    def _read(self, meter: CallMeter, answer: Any, request_id: str | None) -> Completion:
        try:
            completion = self._provider.completion(answer, request_id)
        except UnusableAnswerError:
            self._spend(meter, self._provider.usage(answer))  # paid for, though it is no answer
            raise
        self._spend(meter, completion.usage)
        return self._priced(completion)

    def _spend(self, meter: CallMeter, usage: Usage) -> None:
        meter.told = True
        self.usage += usage
        if usage.reported:
            spent(usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, self.cost(usage))
        if self._spending is not None and meter.money is not None:
            self._spending.cost(meter.money, usage)

    def _lose(self, usage: Usage) -> None:
        self.usage += usage

    def _priced(self, completion: Completion) -> Completion:
        return completion if self._price is None else replace(completion, cost=self.cost(completion.usage))

    async def _in_form(self, ask: Ask, form: Form, reasks: int) -> Completion:
        """Ask until the answer has the form, at most `1 + reasks` times."""
        usage = Usage()
        for answers in itertools.count(1):
            completion = await self._send_form(ask)
            usage += completion.usage
            if completion.tool_calls:  # it wants tools first, and will have its say when it has their results
                return replace(completion, usage=usage, cost=self.cost(usage))
            try:
                parsed = _parsed(form, completion)
            except WrongFormError as exc:
                problems = exc.problems
            else:
                return replace(completion, parsed=parsed, usage=usage, cost=self.cost(usage))
            if completion.finish_reason in ("length", "content_filter"):
                cut = completion.finish_reason == "length"
                why = "cut at max_tokens: allow more" if cut else "ended by 'content_filter'"
                problems += (f"$: the answer was {why}",)
                break  # the same question would end the same way
            if answers > reasks:
                break
            self.reasked += 1
            ask = reask(ask, completion.text, problems)
        raise ModelOutputError(
            f"{ask.model}: no {form.name!r} of the form asked for in {answers} "
            f"{'answer' if answers == 1 else 'answers'}: {'; '.join(problems[:5])}",
            text=completion.text,
            problems=problems,
            usage=usage,
        )

    async def _send_form(self, ask: Ask) -> Completion:
        """As `_send`, in the server's own mode for the form; in words, once it has said that it has none."""
        if not self._in_words:
            try:
                return await self._send(ask)
            except RequestRefusedError as exc:
                if not has_no_mode(exc):
                    raise
                self._in_words = True
        return await self._send(in_words(ask))

    async def _once(self, ask: Ask, form: Form | None, reasks: int, sample: int) -> Completion:
        """An answer from the cache, or from an identical call in flight, or from the model."""
        key = key_for(
            self._provider.name, self._base_url, self._provider.body(ask, self._base_url), form, sample
        )

        async def call() -> Completion:
            found = await self._kept.find(key, form)
            if found is not None:
                return self._free(found)
            completion = await self._fresh(ask, form, reasks)
            await self._kept.keep(key, completion)
            return completion

        if self._coalescer is None:
            return await call()
        shape = (key, None if form is None else form.kind, reasks)
        completion, shared = await self._coalescer.run(shape, call)
        if not shared:
            return completion
        if form is not None and not completion.tool_calls:  # each caller may change its own
            completion = replace(completion, parsed=_parsed(form, completion))
        return self._free(completion)

    def _free(self, completion: Completion) -> Completion:
        self.reused += 1
        cost = None if self._price is None else 0.0
        return replace(completion, usage=Usage(), cost=cost, reused=True)


def _parsed(form: Form, completion: Completion) -> Any:
    return form.read(completion.text, cut=completion.finish_reason == "length")


async def _within(money: Reservation | None, send: Callable[[], Awaitable[T]]) -> T:
    """What `send` gives, called once the money for it is set aside."""
    if money is None:
        return await send()
    async with money:
        return await send()
