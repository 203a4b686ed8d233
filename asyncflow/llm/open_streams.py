"""Streams of one client that are open, by task: a task that holds one may come to wait for itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import anyio

from asyncflow.policy.budget import Budget, Reservation

_log = logging.getLogger("asyncflow")


class OpenStreams:
    """Knows which tasks opened the streams that are open, and says once where a call waits for its own task.

    It is a warning and no error: the stream may have been handed to another task, which will end it.
    """

    def __init__(self) -> None:
        self._tasks: list[int] = []
        self._told = False

    def opened(self) -> Callable[[], None]:
        """The current task has opened one; to be called when that is closed."""
        task = anyio.get_current_task().id
        self._tasks.append(task)
        return partial(self._tasks.remove, task)

    def check(self, limit: int | None, budget: Budget | None, money: Reservation | None) -> None:
        """Before a call: warn if only streams of its own task can make room for it.

        Args:
            limit: Calls at once, or None.
            budget, money: What the client may spend, and what the call needs of it, or None.
        """
        if not self._tasks or self._told:
            return
        own = self._tasks.count(anyio.get_current_task().id)
        if not own:
            return
        full = limit is not None and limit <= own
        if full or (budget is not None and money is not None and budget.waits_for(own, money)):
            self._told = True
            what = f"its limit of {limit} at once" if full else "what is left of max_cost"
            _log.warning(
                "asyncflow: a call waits for a stream that its own task holds open, because of %s: read it "
                "to its end, or leave it, before the next call of this client, else both wait for ever",
                what,
            )
