"""How each item of a pool begins and ends.

It begins unless an earlier process has its outcome, or it has to wait until no other runs; it ends with an
outcome, in the queue for its next attempt, or given up.
"""

from __future__ import annotations

import math
from typing import Any

from asyncflow.clock import SYSTEM
from asyncflow.engine.alone import Turns
from asyncflow.engine.attempt import fall_back, retrying, wait_after
from asyncflow.engine.failure import crashed_outcome, failed_outcome, left_undone, own_error, skipped_outcome
from asyncflow.engine.intake import Intake
from asyncflow.engine.ledger import Ledger
from asyncflow.engine.parking import Parked
from asyncflow.engine.pulse import Pulse
from asyncflow.engine.slot import Slot
from asyncflow.engine.tally import Tally
from asyncflow.errors import BudgetSpentError
from asyncflow.outcome import Failed, Ok, Skipped


class Fate:
    """See the module.

    Args:
        intake: Where the items come in, and come back to between two attempts.
        tally: Where their outcomes go.
        ledger: Where outcomes are recorded first, or None.
        keep: Whether failures are outcomes; otherwise the first one ends the call.
        pulse: That of the run.
    """

    __slots__ = ("_intake", "_keep", "_ledger", "_pulse", "_tally")

    def __init__(
        self, intake: Intake, tally: Tally, ledger: Ledger | None, *, keep: bool, pulse: Pulse
    ) -> None:
        self._intake = intake
        self._tally = tally
        self._ledger = ledger
        self._keep = keep
        self._pulse = pulse

    async def begins(self, slot: Slot) -> bool:
        """Whether the item runs, and now; if not, its outcome is handed on, or it is kept aside."""
        ledger = self._ledger
        if ledger is None:
            return True
        turns = ledger.turns
        if turns is None or not slot.key:  # else it was kept aside, and its turn has come
            ledger.identify(slot)
            if ledger.has_records and await self._recalled(ledger, slot):
                return False
            if turns is not None and not self._passes(ledger, turns, slot):
                return False
        if slot.place is None:
            ledger.begin(slot)
        return True

    async def _recalled(self, ledger: Ledger, slot: Slot) -> bool:
        """Whether an earlier process has the item's outcome, which is handed on."""
        kept = await ledger.recall(slot)
        if kept is None:
            if halted := self._tally.halted:  # meanwhile
                self._drop(slot)
            return halted
        self._tally.recalled += not isinstance(kept, Skipped)
        self._tally.show(kept)
        if SYSTEM.now() >= self._pulse.rest:  # reading back may never suspend
            await self._pulse.let_others_run()
        return True

    def _passes(self, ledger: Ledger, turns: Turns, slot: Slot) -> bool:
        """Whether the item may begin now, in a run with suspects."""
        verdict = ledger.verdict(slot)
        if verdict == "quarantine":
            self.end(slot, crashed_outcome(slot))
            return False
        return turns.admits(Parked(slot.index, slot.item, 1, math.inf, slot.key), verdict)

    async def failed(self, slot: Slot, exc: BaseException) -> None:
        """An attempt has raised `exc`: park the item for its next attempt, or end it, by its fallback or as a
        failure. Raises it where it is not the item's own."""
        if left_undone(slot, exc):
            self._drop(slot)
            return
        error = own_error(slot, exc)
        if error is None:
            raise exc
        if isinstance(error, BudgetSpentError) and self._keep:
            self._withdraw(slot)
            self._tally.show(skipped_outcome(error, slot))
            return
        try:
            wait = wait_after(slot, error)
            if wait is not None:
                self._park(slot, error, wait)
                return
            value = await fall_back(slot, error)
        except Exception as final:
            self.end(slot, failed_outcome(final, slot))
            return
        self.end(slot, Ok(value, slot.index, slot.name, slot.item, slot.attempt))

    def _park(self, slot: Slot, error: Exception, wait: float) -> None:
        """The item waits for its next attempt, unless none begins any more."""
        if self._tally.halted:
            self._drop(slot)
            return
        self._tally.retries += 1
        retrying(slot, error, wait)
        self._intake.park(slot.put_down(), wait)

    def _drop(self, slot: Slot) -> None:
        """The item is given up without an outcome."""
        self._withdraw(slot)
        self._tally.dropped += 1
        self._tally.cut = True

    def _withdraw(self, slot: Slot) -> None:
        """The item is no longer in flight, and nothing of it is recorded."""
        slot.spent = None
        if self._ledger is not None:
            self._ledger.withdraw(slot)

    def end(self, slot: Slot, outcome: Ok[Any] | Failed) -> None:
        """The item has its outcome. It is visible at once, or, with a journal, once it is committed."""
        if self._ledger is None:
            self._tally.show(outcome)
            return
        if isinstance(outcome, Failed) and not self._keep:
            self.halt()  # the call ends with it, once it is committed: nothing more is paid for
        try:
            self._ledger.commit(slot, outcome)
        except Exception as exc:  # the value cannot be stored: that is what became of the item
            self.end(slot, failed_outcome(exc, slot))

    def halt(self) -> None:
        """Begin nothing more: neither new items nor those that wait."""
        self._tally.dropped += self._intake.halt()
