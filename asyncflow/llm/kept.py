"""Which answers are kept, under which key, and how one that was kept becomes a completion again."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from asyncflow.http import UnusableAnswerError
from asyncflow.llm.cache import Cache, key_of
from asyncflow.llm.completion import Completion
from asyncflow.llm.form import Form, WrongFormError
from asyncflow.llm.provider import Provider

_log = logging.getLogger("asyncflow")

_anew: ContextVar[bool] = ContextVar("asyncflow.llm.anew", default=False)


@contextmanager
def asking_anew() -> Iterator[None]:
    """Within it nothing is looked for in a cache; answers are kept. What is measured must be asked for."""
    token = _anew.set(True)
    try:
        yield
    finally:
        _anew.reset(token)


class Kept:
    """A client's side of its cache. A cache that fails is told once, and the model is asked.

    Args:
        cache: A `Cache`, or the path or URL of a store, which is then opened and closed here.

    Attributes:
        hits, misses: How often an answer was found, and not.
        failures: How often the cache itself failed.
    """

    def __init__(self, cache: Cache | str | os.PathLike[str] | None, provider: Provider) -> None:
        if isinstance(cache, (str, os.PathLike)):
            from asyncflow.durability.responses import ResponseCache  # the one place that knows of it

            cache = ResponseCache(cache)
        self.cache: Cache | None = cache
        self._provider = provider
        self._opened = AsyncExitStack()
        self._can_open = self._lazily = hasattr(cache, "__aenter__")
        self._is_open = self._closed = False
        self._told = False
        self.hits = self.misses = self.failures = 0

    async def open(self) -> None:
        """Open the cache, if it is one that can be. What it raises is raised."""
        if self._can_open and not self._is_open:
            door: Any = self.cache
            await self._opened.enter_async_context(door)
            self._is_open, self._lazily = True, False
        self._closed = False

    async def aclose(self) -> None:
        """Close what `open` opened. Safe to call twice."""
        self._is_open = self._lazily = False
        self._closed = True
        await self._opened.aclose()

    async def find(self, key: str, form: Form | None) -> Completion | None:
        """The answer that was kept, where it still has the form that is asked for."""
        if self.cache is None or self._closed:
            return None
        if self._lazily:  # the client is used without `async with`
            await self.open()
        if _anew.get():
            return None
        try:
            answer = await self.cache.get(key)
        except Exception as exc:
            self._failed("cannot be read, so the model is asked", exc)
            return None
        found = None if answer is None else self._completion(answer, form)
        self.hits += found is not None
        self.misses += found is None
        return found

    async def keep(self, key: str, completion: Completion) -> None:
        """Keep an answer, if it is whole and good."""
        if self.cache is None or self._closed or not is_good(completion):
            return
        try:
            await self.cache.put(key, completion.raw)
        except Exception as exc:  # the answer is paid for, and whoever asked shall have it
            self._failed("refused an answer", exc)

    def _completion(self, answer: Any, form: Form | None) -> Completion | None:
        try:
            completion = self._provider.completion(answer)
            parsed = None if form is None or completion.tool_calls else form.read(completion.text)
        except (UnusableAnswerError, WrongFormError):
            return None  # damaged, or kept by another version of the model class
        return replace(completion, parsed=parsed, cached=True)

    def _failed(self, what: str, error: Exception) -> None:
        self.failures += 1
        if not self._told:
            self._told = True
            _log.warning("asyncflow: the cache %r %s", self.cache, what, exc_info=error)


def key_for(provider: str, base_url: str, body: Any, form: Form | None, sample: int) -> str:
    """What an answer is kept under: a digest of all that decides it, and of nothing secret.

    Args:
        provider, base_url, body: What is sent, and where to: model, messages, system text, parameters, tools.
        form: Also counts in what the provider is not told of it.
        sample: Which of several answers to one question.
    """
    return key_of(provider, base_url, body, None if form is None else form.json_schema, sample)


def is_good(completion: Completion) -> bool:
    """Whether an answer ended by itself and says something: not cut, not refused, not empty.

    Example:
        >>> is_good(Completion("Paris")), is_good(Completion("Par", finish_reason="length"))
        (True, False)
    """
    return completion.finish_reason in ("stop", "tool_calls") and bool(
        completion.text or completion.tool_calls
    )
