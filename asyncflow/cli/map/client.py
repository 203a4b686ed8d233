"""The client of a job: whom it asks, and how attempts are counted."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

from asyncflow.cli.map.connections import room_for
from asyncflow.cli.map.job import Job
from asyncflow.cli.usage import UsageError
from asyncflow.errors import NotSupportedError, StoreError
from asyncflow.http.client import RETRY
from asyncflow.llm import LLMClient, Price
from asyncflow.llm.anthropic import Anthropic
from asyncflow.llm.openai import OpenAI
from asyncflow.policy.adaptive import HIGHEST
from asyncflow.policy.retry import Retry
from asyncflow.testing import SimulatedProvider

#: Median seconds of an answer of the simulated provider.
LATENCY = 0.05

PROVIDERS: dict[str, type[OpenAI] | type[Anthropic]] = {"openai": OpenAI, "anthropic": Anthropic}


@dataclass(slots=True)
class Attempts:
    """Attempts made for one row: counted by the retry rule, which is asked about each that fails."""

    made: int = 1
    last: BaseException | None = field(default=None, repr=False)


attempts: ContextVar[Attempts | None] = ContextVar("asyncflow.cli.map.attempts", default=None)


def counting(retry: Retry) -> Retry:
    """The same rule, counting into `attempts` each failed attempt that will be repeated."""

    def repeats(error: BaseException) -> bool:
        again = retry.repeats(error)
        count = attempts.get()
        if again and count is not None and count.last is not error:
            count.last = error
            count.made += 1
        return again

    return replace(retry, on=repeats)


def price_of(job: Job) -> Price | None:
    """The price that the options give, or None.

    Raises:
        UsageError: If one half of it is missing, or a figure is none.
    """
    if job.price_input is None or job.price_output is None:
        given = (job.price_input, job.price_output, job.price_cached_input)
        if any(figure is not None for figure in given):
            raise UsageError("--price-input and --price-output go together: money per million tokens")
        if job.max_cost is not None:
            raise UsageError("--max-cost needs --price-input and --price-output, money per million tokens")
        return None
    try:
        return Price(job.price_input, job.price_output, job.price_cached_input)
    except ValueError as exc:
        raise UsageError(str(exc)) from exc


def check_client(job: Job) -> None:
    """Refuse what no client can be made of, before anything is opened.

    Raises:
        UsageError: If so.
    """
    if job.provider not in PROVIDERS:
        raise UsageError(f"--provider {job.provider}: it is one of {', '.join(PROVIDERS)}")
    if job.concurrency != "auto" and (room := _room(job, job.concurrency)) < job.concurrency:
        raise UsageError(
            f"--concurrency {job.concurrency}: the system lets this process have {room} connections open; "
            "`ulimit -n` raises that"
        )
    if job.simulate and job.cache is not None:
        raise UsageError(
            "--simulate asks no model, so there is no answer to keep in a --cache: give one of them"
        )
    if job.simulate and job.base_url is not None:
        raise UsageError("--simulate asks nobody, --base-url says whom to ask: give one of them")
    if job.simulate:
        return
    if job.model is None:
        raise UsageError("--model is missing: which model? (--simulate tries the rest of it without one)")
    provider = PROVIDERS[job.provider]
    key = os.environ.get(provider.key_variable)
    if key is None and job.base_url is None and not os.environ.get(provider.url_variable):
        raise UsageError(
            f"no API key for {provider.default_base_url}: set {provider.key_variable}, or name a server of "
            "your own with --base-url. --simulate tries it without a key: no model is asked, nothing is paid"
        )


async def client_of(job: Job, stack: AsyncExitStack) -> LLMClient:
    """The client, and the simulated provider where that is asked, open until the stack is closed.

    Raises:
        UsageError: If a setting is wrong.
    """
    base_url, api_key = job.base_url, None
    if job.simulate:
        simulated = await stack.enter_async_context(SimulatedProvider(latency=LATENCY))
        base_url = simulated.anthropic_base_url if job.provider == "anthropic" else simulated.base_url
        api_key = ""
    try:
        client = LLMClient(
            job.model or "simulated",
            provider=job.provider,
            base_url=base_url,
            api_key=api_key,
            timeout=job.timeout,
            retry=counting(replace(RETRY, attempts=job.retries + 1)),
            price=price_of(job),
            concurrency="auto" if job.concurrency == "auto" else None,
            requests_per_minute=job.requests_per_minute,
            tokens_per_minute=job.tokens_per_minute,
            max_cost=job.max_cost,
            cache=job.cache,
        )
    except NotSupportedError as exc:
        raise UsageError(f"--cache: {exc}") from exc
    except (ValueError, TypeError) as exc:
        raise UsageError(str(exc)) from exc
    try:
        return await stack.enter_async_context(client)
    except StoreError as exc:
        raise UsageError(f"--cache: {exc}") from exc


def concurrency_of(job: Job) -> int:
    """Rows at work at once, at most.

    With `"auto"` as many as its limit can ever come to, so that the lane decides how many calls are made and
    not the engine: the others wait in its line, which holds their prompts and nothing else. Fewer where the
    system does not let so many connections be open.
    """
    return _room(job, HIGHEST) if job.concurrency == "auto" else job.concurrency


def _room(job: Job, calls: int) -> int:
    return room_for(calls, files_each=2 if job.simulate else 1)
