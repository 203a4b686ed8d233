"""`LLMClient`: one call to a model, done well."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import NoneType, TracebackType
from typing import Any, Literal

from asyncflow import clock
from asyncflow.errors import NotSupportedError
from asyncflow.http import HTTPClient, HTTPXClient, HTTPXTransport, Lane, Timeouts
from asyncflow.http.client import RETRY
from asyncflow.llm.addresses import below, checked_key, checked_url, shown
from asyncflow.llm.anthropic import Anthropic
from asyncflow.llm.ask import Ask, Prompt, check_options, messages_of
from asyncflow.llm.asking import Asking
from asyncflow.llm.cache import Cache
from asyncflow.llm.completion import Completion
from asyncflow.llm.embeddings import Embeddings, body_of, in_batches
from asyncflow.llm.estimate import Estimate, estimate_of
from asyncflow.llm.form import Form, Schema
from asyncflow.llm.kept import Kept, asking_anew
from asyncflow.llm.openai import OpenAI
from asyncflow.llm.price import Price
from asyncflow.llm.provider import Provider
from asyncflow.llm.spending import Spending
from asyncflow.llm.statistics import LLMStatistics
from asyncflow.llm.stream import TextStream
from asyncflow.policy.budget import Budget
from asyncflow.policy.lane import RateLane
from asyncflow.policy.limits import Limits
from asyncflow.policy.retry import Retry
from asyncflow.policy.settings import LaneSettings

_PROVIDERS: dict[str, Callable[[], Provider]] = {"openai": OpenAI, "anthropic": Anthropic}


class LLMClient:
    """Asks one model, with retries, finite timeouts, usage and cost.

    An async context manager. One client serves any number of concurrent calls of one event loop.

    Args:
        model: The model's name, as the provider writes it.
        provider: `"openai"` for OpenAI and everything that speaks its chat protocol, by `base_url`;
            `"anthropic"` for the Messages protocol.
        base_url: As the provider's own SDK takes it: with `/v1` for OpenAI, without for Anthropic; a query
            follows each call's path. The attribute of this name holds no user, password or query. Where it
            is None, the variable `OPENAI_BASE_URL` (`ANTHROPIC_BASE_URL`) is read, once, here; else the
            provider's own address counts.
        api_key: Where it is None, the variable `OPENAI_API_KEY` (`ANTHROPIC_API_KEY`) is read, once, here.
            `""` sends no key, as many local servers like it. The key appears in no error, `repr` or log.
        concurrency: Calls on the wire at once: a number; `"auto"`, a limit that finds itself, from 16 at
            first to 1,000; or None, which leaves it to whoever calls (`amap`, a node).
        requests_per_minute, tokens_per_minute: The provider's quotas, used whole and never passed.
        limits: A `Limits`, whose lane for this provider, key and model this client shares; by default those
            of the running event loop. Or a `Lane` of your own, instead of these four.
        timeout: `Timeouts`, or seconds for one attempt as a whole. None: the defaults, all finite.
        retry: What is repeated; None repeats nothing. A 429 has attempts of its own. The error of a call
            that was allowed to repeat has `exhausted` set, so a node does not multiply its attempts.
        http: An `httpx.AsyncClient` of your own to send through, or an httpx transport; it stays open.
        cache: Where whole answers are looked for and kept: the path or URL of a store, opened with the
            client; an `asyncflow.durability.ResponseCache`, which has a time to live; or a `Cache` of your
            own. The key covers everything that is sent; `complete(sample=…)` keeps samples apart.
        coalesce: Whether identical requests in flight become one call.
        price: Money per million tokens, for `Completion.cost` and `statistics().cost`.
        max_cost: What this client may spend, at `price`. A call that may not fit any more raises
            `BudgetSpentError` before it is sent; calls under way are counted at what they cost at most.

    Raises:
        ValueError: If there is neither a key nor a base URL, either of them cannot be one, or the provider is
            unknown.
        TypeError: If `retry`, `limits` or `price` is something else.

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
        concurrency: int | Literal["auto"] | None = "auto",
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        limits: Limits | Lane | None = None,
        timeout: Timeouts | float | None = None,
        retry: Retry | None = RETRY,
        http: HTTPXClient | HTTPXTransport | None = None,
        cache: Cache | str | os.PathLike[str] | None = None,
        coalesce: bool = False,
        price: Price | None = None,
        max_cost: float | None = None,
    ) -> None:
        if provider not in _PROVIDERS:
            raise ValueError(f"provider={provider!r}: it is one of {', '.join(map(repr, _PROVIDERS))}")
        self._provider: Provider = _PROVIDERS[provider]()
        if not isinstance(model, str) or not model.strip():
            raise TypeError(f"model={model!r}: the model's name is needed, as the provider writes it")
        self.model = model
        given = base_url if base_url is not None else os.environ.get(self._provider.url_variable)
        address = checked_url(given or self._provider.default_base_url, self._provider)
        self.base_url = shown(address)
        key = api_key if api_key is not None else os.environ.get(self._provider.key_variable)
        if key is None and address == self._provider.default_base_url:
            raise ValueError(
                f"LLMClient({model!r}): no API key for {self.base_url}. Pass api_key=, or set "
                f"{self._provider.key_variable}; for a server of your own pass base_url= (and api_key='')"
            )
        key = checked_key(key)
        headers = self._provider.headers(key)
        settings = LaneSettings(requests_per_minute, tokens_per_minute, concurrency)
        lane = _lane(limits, settings, address, key, model)
        if not isinstance(http, (HTTPXClient, HTTPXTransport, NoneType)):
            raise TypeError(f"http={http!r:.100}: give an httpx.AsyncClient, or an httpx transport")
        client = http if isinstance(http, HTTPXClient) else None
        transport = http if isinstance(http, HTTPXTransport) else None
        self._http = HTTPClient(timeout=timeout, retry=retry, lane=lane, client=client, transport=transport)
        unknown = f"check the model's name, and base_url: {self._provider.base_url_hint}"
        advice = {404: unknown, 405: unknown}
        chat, embed = self._provider.path(), self._provider.embeddings_path
        self._complete = self._http.endpoint("POST", below(address, chat), headers, advice)
        self._embed = self._http.endpoint("POST", below(address, embed), headers, advice) if embed else None
        if max_cost is not None and price is None:
            raise ValueError(f"max_cost={max_cost!r}: without price= nothing is known to cost anything")
        if not (price is None or isinstance(price, Price)):
            raise TypeError(
                f"price={price!r}: give a Price, such as Price(0.25, 2.0): money per million tokens"
            )
        spending = None if price is None or max_cost is None else Spending(price, Budget(max_cost))
        self._kept = Kept(cache, self._provider)
        self._asking = Asking(
            self._provider, self.base_url, self._complete, price, self._kept, coalesce, self._http, spending
        )
        self._price = price
        self._forms: dict[Any, Form] = {}

    async def complete(
        self,
        prompt: Prompt,
        *,
        system: str | None = None,
        schema: Schema | None = None,
        reasks: int = 2,
        max_tokens: int | None = None,
        temperature: float | None = None,
        stop: str | Sequence[str] = (),
        tools: Sequence[Mapping[str, Any]] = (),
        extra: Mapping[str, Any] | None = None,
        sample: int = 0,
    ) -> Completion:
        """Ask the model, and return its whole answer.

        Args:
            prompt: Text, or messages such as `{"role": "user", "content": "…"}`. Content parts (images)
                are passed through in the provider's own form.
            system: The system text.
            schema: The form of the answer: a pydantic model class, or a JSON schema. The provider's own mode
                for it is used, the answer is checked here, and `parsed` holds the value; None where the model
                calls tools instead.
            reasks: How often a model whose answer has the wrong form is shown what is wrong and asked again.
            max_tokens: The longest answer.
            temperature: The provider's own where it is None.
            stop: A text, or several, that end the answer.
            tools: In the provider's own form.
            extra: Fields added to the request as they are; they win over ours.
            sample: Which of several answers to the same question is wanted. Not sent: answers of different
                samples are kept apart by a cache, and not made one call by `coalesce`.

        Raises:
            HTTPError: Of the class that says what happened: `RateLimitedError`, `ServerError`,
                `AccessDeniedError`, `RequestTooLargeError`, `BadAnswerError`, …
            ModelOutputError: If the answer had the wrong form every time.

        Can be cancelled anywhere; what is on the wire is cut off.
        """
        form = None if schema is None else self._form(schema)
        # No name for what is asked: then the call does not keep it while it waits.
        return await self._asking.answer(
            self._asked(prompt, system, max_tokens, temperature, stop, tools, extra, form),
            form,
            reasks,
            sample,
        )

    def stream(
        self,
        prompt: Prompt,
        *,
        system: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        stop: str | Sequence[str] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> TextStream:
        """The pieces of an answer's text as the model writes them; see `TextStream`.

        An open stream is a call under way: it counts for `concurrency`, and its money is set aside. A task
        that makes another call of this client before it has left its stream waits for itself, and so for
        ever, where `concurrency` is 1 (or as many as it holds streams), or little is left of `max_cost`; a
        warning says so.

        Example:
            >>> async def show(llm):
            ...     async with llm.stream("Tell me a story") as pieces:
            ...         async for text in pieces:
            ...             print(text, end="")
            ...     return pieces.completion.usage
        """
        ask = replace(
            self._asked(prompt, system, max_tokens, temperature, stop, (), extra, None), stream=True
        )
        return self._asking.stream(ask)

    async def embed(
        self,
        texts: Iterable[str],
        *,
        dimensions: int | None = None,
        batch_size: int = 256,
        extra: Mapping[str, Any] | None = None,
    ) -> Embeddings:
        """The vectors of several texts, `batch_size` of them in each request, one request after the other.

        Args:
            texts: At least one.
            dimensions: The length of the vectors, where the model can choose.
            batch_size: Texts per request.
            extra: Fields added to each request.

        Raises:
            HTTPError: As `complete`. Where requests before it were answered, its `partial` has the
                `Embeddings` of their texts, so nothing that was paid for is lost.
            NotSupportedError: If the provider has no embeddings.

        Example:
            >>> async def as_many_as_can_be(llm, texts):
            ...     try:
            ...         return (await llm.embed(texts)).vectors
            ...     except HTTPError as error:  # in texts[len(vectors):][:256]
            ...         return [] if error.partial is None else error.partial.vectors
        """
        if self._embed is None:
            raise NotSupportedError(f"provider={self._provider.name!r} has no embeddings")
        texts = [] if isinstance(texts, str) else list(texts)
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError('embed takes a list of texts, at least one: embed(["a text"])')
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size!r}: at least 1 is needed")
        endpoint = self._embed

        def embed(batch: Sequence[str]) -> Awaitable[Embeddings]:
            return self._asking.embed(endpoint, body_of(self.model, batch, dimensions, extra))

        return await in_batches(texts, batch_size, embed)

    async def estimate(
        self, prompts: Sequence[Prompt], *, sample: int = 20, seed: int = 0, **options: Any
    ) -> Estimate:
        """What asking all these prompts will cost and take, from asking a few of them, which is paid for.

        Args:
            prompts: All of them.
            sample: How many are asked, one after the other, drawn at random without repetition.
            seed: For the draw.
            options: As for `complete`.

        Raises:
            ValueError: If there are no prompts, or `sample` is below 1.
            Exception: What the last call raised, if all of them failed.

        Example:
            >>> async def worth_it(llm, prompts, budget):
            ...     estimate = await llm.estimate(prompts, max_tokens=200)
            ...     return estimate.cost.high <= budget
        """
        if not prompts or sample < 1:
            raise ValueError("estimate needs at least one prompt, and a sample of at least 1")
        drawn = random.Random(seed).sample(range(len(prompts)), min(sample, len(prompts)))
        done: list[tuple[Completion, float]] = []
        failure: Exception | None = None
        for index in drawn:
            started = clock.now()
            try:
                with asking_anew():
                    answer = await self.complete(prompts[index], **options)
                done.append((answer, clock.now() - started))
            except Exception as exc:
                failure = exc
        if not done:
            assert failure is not None
            raise failure
        lane = self._http.lane
        kept = lane.kept if isinstance(lane, RateLane) else LaneSettings()
        return estimate_of(
            done,
            len(prompts),
            len(drawn) - len(done),
            self._price,
            requests_per_minute=kept.requests_per_minute,
            tokens_per_minute=kept.tokens_per_minute,
        )

    def statistics(self) -> LLMStatistics:
        """What the client has done so far."""
        http = self._http.statistics()
        return LLMStatistics(
            http.calls,
            http.failed,
            http.running,
            http.attempts,
            http.refused,
            self._asking.reused,
            self._asking.reasked,
            self._asking.usage,
            self._asking.cost(self._asking.usage),
            self._kept.hits,
            self._kept.misses,
            self._kept.failures,
        )

    async def aclose(self) -> None:
        """Close the connections and the cache; calls under way fail, later ones too. Safe to call twice."""
        try:
            await self._http.aclose()
        finally:
            await self._kept.aclose()

    async def __aenter__(self) -> LLMClient:
        await self._kept.open()
        try:
            await self._http.__aenter__()  # which tries a lane that is stopped
        except BaseException:
            await self._kept.aclose()
            raise
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

    def _asked(
        self,
        prompt: Prompt,
        system: str | None,
        max_tokens: int | None,
        temperature: float | None,
        stop: str | Sequence[str],
        tools: Sequence[Mapping[str, Any]],
        extra: Mapping[str, Any] | None,
        form: Form | None,
    ) -> Ask:
        check_options(max_tokens, temperature, stop, tools, extra)
        return Ask(
            self.model,
            messages_of(prompt),
            system,
            max_tokens,
            temperature,
            (stop,) if isinstance(stop, str) else tuple(stop),
            tuple(tools),
            None if form is None else form.asked,
            "answer" if form is None else form.name,
            extra,
        )

    def _form(self, schema: Schema) -> Form:
        if isinstance(schema, Mapping):
            return Form(schema)
        try:
            form = self._forms.get(schema)
        except TypeError:  # an annotated type, or no type at all
            return Form(schema)
        if form is None:
            form = self._forms[schema] = Form(schema)
        return form


def _lane(
    limits: Limits | Lane | None, settings: LaneSettings, base_url: str, key: str, model: str
) -> Lane | Callable[[], Lane]:
    """The lane, or how to find it once an event loop runs."""
    if limits is not None and not isinstance(limits, Limits):
        if not callable(getattr(limits, "attempt", None)):
            raise TypeError(f"limits={limits!r}: give a Limits, such as Limits(requests_per_minute=500)")
        if settings not in (LaneSettings(), LaneSettings(concurrency="auto")):
            raise ValueError(
                "limits= is a lane of its own, instead of concurrency= and quotas: give one, or a Limits"
            )
        return limits
    return lambda: (limits if limits is not None else Limits.of_loop()).lane(base_url, key, model, settings)
