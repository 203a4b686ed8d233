"""Rows in line: those for which nothing was paid yet are given up as soon as the run is asked to stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from asyncflow.engine.hosts import running_host
from asyncflow.engine.stopping import Stop
from asyncflow.errors import BudgetSpentError
from asyncflow.waiting import Waiter, current


class NotAskedError(BudgetSpentError):
    """The run was asked to stop, or the provider was given up, before the row was asked about."""

    reason = "given up"


class Turns:
    """Knows of each row that is at work whether it only waits: for its lane, or between two attempts.

    For the engine such a row is in flight, as one is whose request is on the wire. It would be sent, and paid
    for, after somebody has pressed Ctrl-C.

    Args:
        stop: What asks the run to stop.
    """

    def __init__(self, stop: Stop) -> None:
        self.stop = stop
        self.idle: set[_Turn] = set()

    @contextmanager
    def heard(self) -> Iterator[None]:
        """While this block lasts, rows that wait are given up when it is asked to stop."""
        deaf = self.stop.listen(running_host(), self._give_up)
        try:
            yield
        finally:
            deaf()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The block in which a row is asked about.

        Raises:
            NotAskedError: If it was given up.
        """
        turn = _Turn(self, current.get())
        token = current.set(turn)
        try:
            with turn.scope:
                yield
        finally:
            current.reset(token)
            self.idle.discard(turn)
        if turn.scope.cancelled_caught:
            raise NotAskedError("the run was asked to stop before the row was asked")

    def _give_up(self) -> None:
        for turn in tuple(self.idle):
            turn.scope.cancel()


class _Turn:
    """Stands behind `waiting` for one row, and passes on what it hears to whoever stood there."""

    __slots__ = ("_behind", "_paid", "_turns", "_waits", "scope")

    def __init__(self, turns: Turns, behind: Waiter | None) -> None:
        self._turns = turns
        self._behind = behind
        self._waits = 0
        self._paid = False
        self.scope = anyio.CancelScope()

    def pause(self, reason: str) -> None:
        if self._behind is not None:
            self._behind.pause(reason)
        self._waits += 1
        if not self._paid:
            self._turns.idle.add(self)
            self._look()

    async def resume(self) -> None:
        self._waits -= 1
        if not self._waits and self in self._turns.idle:
            self._turns.idle.remove(self)
            self._look()  # its turn may have come in the very moment
        if self._behind is not None:
            await self._behind.resume()
        await checkpoint_if_cancelled()

    def _look(self) -> None:
        if self._turns.stop.asked:
            self.scope.cancel()

    def pause_from_thread(self, reason: str) -> None:
        if self._behind is not None:
            self._behind.pause_from_thread(reason)

    def resume_from_thread(self) -> None:
        if self._behind is not None:
            self._behind.resume_from_thread()

    def spend(
        self, input_tokens: int, output_tokens: int, cached_input_tokens: int, cost: float | None
    ) -> None:
        self._paid = True
        if self._behind is not None:
            self._behind.spend(input_tokens, output_tokens, cached_input_tokens, cost)
