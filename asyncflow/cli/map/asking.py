"""The step of `asyncflow map`: one row, one answer; and how all of them are stopped early without a loss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import anyio

from asyncflow.cli.map.client import Attempts, attempts
from asyncflow.cli.map.job import Job
from asyncflow.cli.map.result import Answered
from asyncflow.cli.map.rows import Row
from asyncflow.cli.map.template import Template
from asyncflow.llm import LLMClient

#: In the place of an answer: the row was not asked, or cut off, because all of it was stopped.
STOPPED = "stopped"


class Stop:
    """Ends a run early. Calls in flight are cut off, no row is begun; what is answered is still delivered.

    Attributes:
        reason: Why, in a word, or None while it goes on.
        error: What made it stop, if something did.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.error: BaseException | None = None
        self._scopes: set[anyio.CancelScope] = set()

    def __call__(self, reason: str, error: BaseException | None = None) -> None:
        if self.reason is None:
            self.reason, self.error = reason, error
            for scope in self._scopes:
                scope.cancel()

    def until(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows, until it is stopped."""
        for row in rows:
            if self.reason is not None:
                return
            yield row

    async def cut_off(self, call: Any) -> Any:
        """What the coroutine returns, or STOPPED."""
        if self.reason is not None:
            call.close()
            return STOPPED
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                return await call
            finally:
                self._scopes.discard(scope)
        return STOPPED


class Asking:
    """Asks the model for one row after another.

    Args:
        job: The options of each call.
        client: Whom to ask.
        template: Makes the prompt.
        schema: The form of the answers, or None.
        stop: Ends it early.
    """

    def __init__(
        self, job: Job, client: LLMClient, template: Template, schema: Mapping[str, Any] | None, stop: Stop
    ) -> None:
        self._client = client
        self._template = template
        self._stop = stop
        self._options: dict[str, Any] = {
            "system": job.system,
            "schema": schema,
            "max_tokens": job.max_tokens,
            "temperature": job.temperature,
        }

    async def ask(self, row: Row) -> Answered | str:
        """The answer for a row, or STOPPED. Raises what `LLMClient.complete` raises."""
        count = Attempts()
        token = attempts.set(count)
        try:
            prompt = self._template.fill(row.values)
            completion = await self._stop.cut_off(self._client.complete(prompt, **self._options))
        finally:
            attempts.reset(token)
        return STOPPED if completion is STOPPED else Answered(completion, count.made)
