"""The step of `asyncflow map`: one row, one answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asyncflow.cli.map.client import Attempts, attempts
from asyncflow.cli.map.job import Job
from asyncflow.cli.map.result import Answered
from asyncflow.cli.map.rows import Row
from asyncflow.cli.map.stop import STOPPED, Stop
from asyncflow.cli.map.template import Template
from asyncflow.llm import LLMClient


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
