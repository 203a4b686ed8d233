"""A pool's part in a durable run: what is recalled, what has begun, what waits for its commit.

Outcomes go in with `commit` and come out, to be seen, once the journal has them. When the journal refuses
one, nothing is kept any more, so nothing goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from asyncflow.engine.alone import Alone, Turns
from asyncflow.engine.context import Run
from asyncflow.engine.intake import Intake
from asyncflow.engine.journal import Place, Verdict
from asyncflow.engine.slot import Slot
from asyncflow.engine.tasks import Waker
from asyncflow.errors import StoreError
from asyncflow.outcome import Failed, Ok, Outcome


class Ledger:
    """See the module.

    Args:
        place: Where the journal keeps the items of the pool's node.
        run: The run that the pool is part of.
        intake: Where its items come in; held back while too many outcomes wait for their commit.
        most: How many those are.
        show: Called with each outcome that is committed.
        stop: Called with what the journal has refused with: what is in flight is cut off.

    Attributes:
        place: As given.
        turns: The gate that all items pass in a run with suspects, else None.
        lost: Whether nothing is kept any more; no outcome is seen from then on.
    """

    __slots__ = (
        "_all_committed",
        "_intake",
        "_most",
        "_run",
        "_show",
        "_stop",
        "_uncommitted",
        "lost",
        "place",
        "turns",
    )

    def __init__(
        self,
        place: Place,
        run: Run,
        intake: Intake,
        *,
        most: int,
        show: Callable[[Outcome[Any]], None],
        stop: Callable[[BaseException], None],
    ) -> None:
        self.place = place
        self._run = run
        self._intake = intake
        self._most = most
        self._show = show
        self._stop = stop
        self._uncommitted = 0
        self._all_committed: Waker | None = None
        self.lost = False
        self.turns: Turns | None = None
        if run.alone is not None:
            self.turns = Turns(Alone() if run.host.blocking else run.alone, intake.wake_all)
            intake.keep_aside(self.turns)

    # Before an item begins.

    @property
    def has_records(self) -> bool:
        """Whether an earlier process recorded anything here; if not, nobody needs to ask."""
        return self.place.has_records

    def identify(self, slot: Slot) -> None:
        """Give the slot's item its key. Once per item, in input order."""
        slot.key = self.place.key_of(slot.item)

    async def recall(self, slot: Slot) -> Outcome[Any] | None:
        """What an earlier process committed for the slot's item; None: it has to run."""
        kept = await self.place.recall(slot.key)
        return None if kept is None else replace(kept, index=slot.index, key=slot.name, item=slot.item)

    def verdict(self, slot: Slot) -> Verdict:
        """What earlier deaths of the process say about the slot's item."""
        return "run" if self.lost else self.place.verdict(slot.key)

    def begin(self, slot: Slot) -> None:
        """An attempt is about to start: if the process dies now, the item was in flight."""
        self.place.begin(slot.key)

    # When it has ended.

    def withdraw(self, slot: Slot) -> None:
        """The slot's item is given up without an outcome."""
        if not self.lost:
            self.place.withdraw(slot.key)
        self._leave(slot.key)

    def commit(self, slot: Slot, outcome: Ok[Any] | Failed) -> None:
        """Record what became of the slot's item, and show it once it is committed.

        Raises:
            Why the value cannot be stored: nothing is recorded of the item yet.
        """
        if self.lost:
            return
        self._uncommitted += 1
        try:
            committed = partial(self._committed, outcome, slot.key)
            self.place.commit(slot.key, outcome, committed, slot.spent)
        except Exception as exc:
            self._uncommitted -= 1
            if not isinstance(outcome, Failed) and not isinstance(exc, StoreError):
                raise
            self.lose(exc)
        else:
            slot.spent = None
            if self._uncommitted == self._most:
                self._intake.hold_back(True)

    def _committed(self, outcome: Ok[Any] | Failed, key: bytes, error: BaseException | None) -> None:
        self._uncommitted -= 1
        self._leave(key)
        if error is None:
            self._show(outcome)
        else:
            self.lose(error)
        if self._uncommitted == self._most - 1:
            self._intake.hold_back(False)
        self._intake.wake_one()
        if not self._uncommitted and self._all_committed is not None:
            self._all_committed.set()

    def _leave(self, key: bytes) -> None:
        if self.turns is not None:
            self.turns.leave(key)

    def lose(self, error: BaseException) -> None:
        """The journal has raised `error`: nothing is kept any more, so nothing goes on."""
        self.lost = True
        self._run.counts.refused(error)
        self._stop(error)

    async def settled(self) -> BaseException | None:
        """Wait until all is committed or refused. Returns a cancellation of the meantime, to be raised."""
        if not self._uncommitted:
            return None
        self._all_committed = self._run.host.waker()
        return await self._run.host.outlast(self._all_committed)

    def close(self) -> None:
        """No attempt runs here any more: items that were begun and have no outcome were cancelled."""
        if not self.lost:
            self.place.leave()
        if self.turns is not None:
            self.turns.close()
        del self._stop
