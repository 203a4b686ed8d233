"""The step of `asyncflow map`: one row, one answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asyncflow.cli.map.client import Attempts, attempts
from asyncflow.cli.map.job import Job
from asyncflow.cli.map.rows import Row
from asyncflow.cli.map.template import Template
from asyncflow.cli.map.turns import NotAskedError, Turns
from asyncflow.engine.stopping import Stop
from asyncflow.errors import AccessDeniedError, TransientError
from asyncflow.llm import Completion, LLMClient


class Asking:
    """Asks the model for one row after another.

    Args:
        job: The options of each call.
        client: Whom to ask.
        template: Makes the prompt.
        schema: The form of the answers, or None.
        stop: Says when the provider was given up, or the run is to end.

    Attributes:
        turns: Which rows only wait.
    """

    def __init__(
        self, job: Job, client: LLMClient, template: Template, schema: Mapping[str, Any] | None, stop: Stop
    ) -> None:
        self._client = client
        self._template = template
        self._stop = stop
        self.turns = Turns(stop)
        self._options: dict[str, Any] = {
            "system": job.system,
            "schema": schema,
            "max_tokens": job.max_tokens,
            "temperature": job.temperature,
        }

    async def ask(self, row: Row) -> tuple[Completion, int]:
        """The answer for a row, and how many requests it took.

        Raises:
            NotAskedError: If the provider was given up, for all rows at once, or the run was asked to stop
                while the row only waited.
            What `LLMClient.complete` raises.
        """
        count = Attempts()
        token = attempts.set(count)
        try:
            with self.turns.turn():
                completion = await self._client.complete(self._template.fill(row.values), **self._options)
        except Exception as exc:
            if self._stop.asked and (exc is self._stop.error or _of_provider(exc)):
                raise NotAskedError(str(exc)) from exc
            raise
        finally:
            attempts.reset(token)
        return completion, 0 if completion.cached else count.made


def _of_provider(error: BaseException) -> bool:
    """Whether it says something of the provider, and nothing of the row."""
    return isinstance(error, (AccessDeniedError, TransientError))
