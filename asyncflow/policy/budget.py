"""Money: `max_cost` as a reservation. What a call may cost is set aside before it is made.

Each call comes with two figures: what it probably costs, and what it costs at most. Calls run side by side
while the sum of what they cost at most fits. Near the end they go one at a time, on what they probably cost;
so what is spent passes `max_cost` by the error of one call's estimate, and no more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TypeAlias

from asyncflow.errors import BudgetSpentError
from asyncflow.policy.line import Line
from asyncflow.waiting import waiting

#: Tells what a call costs probably, and at most.
Costs: TypeAlias = Callable[[], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class BudgetStatistics:
    """What a budget has seen.

    Attributes:
        max_cost: What may be spent.
        spent: What calls that have ended cost.
        reserved: What calls under way cost at most.
        refused: Calls that it stopped.
        running, waiting: Calls under way, and those that wait for what one of them leaves over.
    """

    max_cost: float
    spent: float
    reserved: float
    refused: int
    running: int
    waiting: int


class Budget:
    """What may be spent, in the currency of the user's prices. For one event loop at a time.

    Args:
        max_cost: From 0; None: nothing is refused, and all is counted.

    Guarantee: where no call costs more than it was said to cost at most, `spent` passes `max_cost` by no more
    than what one call cost above its `probably`.

    Example:
        >>> import asyncio
        >>> async def main():
        ...     budget = Budget(0.01)
        ...     async with budget.reserve(probably=0.004, at_most=0.008) as call:
        ...         call.cost(0.007)
        ...     try:
        ...         async with budget.reserve(probably=0.004, at_most=0.008):
        ...             pass
        ...     except BudgetSpentError as error:
        ...         return error.reason, budget.statistics().spent
        >>> asyncio.run(main())
        ('budget', 0.007)
    """

    def __init__(self, max_cost: float | None) -> None:
        if max_cost is not None and (
            isinstance(max_cost, bool) or not isinstance(max_cost, (int, float)) or not max_cost >= 0
        ):
            raise ValueError(f"max_cost={max_cost!r}: an amount from 0 is needed, or None")
        self.max_cost = math.inf if max_cost is None else float(max_cost)
        self._spent = 0.0
        self._reserved = 0.0
        self._running = 0
        self._refused = 0
        self._line: Line[Reservation] = Line(self._admit)

    def reserve(self, *, probably: float | Costs, at_most: float | None = None) -> Reservation:
        """A context manager around one call; entering it may wait until calls under way have ended.

        Args:
            probably: What the call is expected to cost; or a function that tells both figures, asked when the
                call's turn has come, by what is known then.
            at_most: What it costs if everything it may use is used; by default as `probably`.

        Raises:
            BudgetSpentError: On entering, if the budget has not enough left, whatever those under way cost.
        """
        if callable(probably):
            return Reservation(self, probably)
        figures = probably, probably if at_most is None else at_most
        return Reservation(self, lambda: figures)

    def check(self) -> None:
        """For a call whose cost nobody can tell before: let it start only while something is left.

        Raises:
            BudgetSpentError: If all is spent or reserved.
        """
        if self._spent + self._reserved >= self.max_cost:
            self._refused += 1
            raise BudgetSpentError(f"not started: of max_cost={self.max_cost:g} nothing is left")

    def waits_for(self, running: int, call: Reservation) -> bool:
        """Whether a call would have to wait now, for so many calls and no others."""
        verdict = may_start(
            self.max_cost, self._spent, self._reserved, self._running, call.probably, call.at_most
        )
        return verdict is None and self._running <= running

    def add(self, cost: float) -> None:
        """Count a cost that nothing was reserved for."""
        self._spent += cost

    def statistics(self) -> BudgetStatistics:
        """What the budget has seen."""
        return BudgetStatistics(
            self.max_cost, self._spent, self._reserved, self._refused, self._running, len(self._line)
        )

    def __repr__(self) -> str:
        return f"<Budget {self._spent:.6g} of {self.max_cost:g} spent, {self._reserved:.6g} reserved>"

    def _admit(self, call: Reservation, now: float) -> float | None:
        call.look()
        verdict = may_start(
            self.max_cost, self._spent, self._reserved, self._running, call.probably, call.at_most
        )
        if verdict is None:
            return math.inf
        if verdict:
            self._reserved += call.at_most
            self._running += 1
            call.state = "running"
        else:
            self._refused += 1
            call.state = "refused"
        return None

    async def _enter(self, call: Reservation) -> None:
        if self._line or self._admit(call, 0.0) is not None:
            try:
                async with waiting("budget"):
                    await self._line.wait(call)
            except BaseException:
                if call.state == "running":
                    self._leave(call, 0.0)
                raise
        if call.state == "refused":
            raise BudgetSpentError(
                f"not started: it probably costs {call.probably:.6g}, and of max_cost={self.max_cost:g} "
                f"{max(0.0, self.max_cost - self._spent):.6g} is left"
            )

    def _leave(self, call: Reservation, cost: float) -> None:
        call.state = ""
        self._running -= 1
        self._reserved = self._reserved - call.at_most if self._running else 0.0
        self._spent += cost
        self._line.move()


class Reservation:
    """What `Budget.reserve` returns. A call that ends without having said its cost has cost nothing."""

    __slots__ = ("_budget", "_cost", "_costs", "at_most", "probably", "state")

    def __init__(self, budget: Budget, costs: Costs) -> None:
        self._budget = budget
        self._cost = 0.0
        self._costs = costs
        self.state = ""
        self.look()

    def look(self) -> None:
        """See what the call costs by what is known now."""
        self.probably, at_most = self._costs()
        self.at_most = max(self.probably, at_most)

    def cost(self, amount: float) -> None:
        """What an attempt of the call really cost; attempts add up."""
        self._cost += amount

    async def again(self) -> None:
        """Before another attempt of the call: what it has cost is spent, and its money set aside anew.

        May wait, as entering it. Where nothing was spent it does nothing.

        Raises:
            BudgetSpentError: If the budget has not enough left for it.
        """
        if self._cost:
            self.end()
            await self._budget._enter(self)

    def end(self) -> None:
        """The call is over; for a call that is no block of code, in the place of `__aexit__`."""
        if self.state == "running":
            self._budget._leave(self, self._cost)
            self._cost = 0.0

    async def __aenter__(self) -> Reservation:
        await self._budget._enter(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.end()


def may_start(
    max_cost: float, spent: float, reserved: float, running: int, probably: float, at_most: float
) -> bool | None:
    """Whether one more call may start: yes, no, or (None) perhaps, when a call under way has ended.

    Args:
        max_cost, spent: The budget, and what of it is gone.
        reserved: What the calls under way cost at most, and `running` how many those are.
        probably, at_most: What the call costs.

    Example:
        >>> may_start(10, 0, 0, 0, 1, 4), may_start(10, 0, 8, 2, 1, 4), may_start(10, 7, 0, 0, 1, 4)
        (True, None, True)
        >>> may_start(10, 9.5, 0, 0, 1, 4), may_start(10, 9.5, 0.1, 1, 1, 4)
        (False, False)
    """
    slack = 1e-9 * max_cost if max_cost < math.inf else 0.0  # ten calls at 0.1 fit into 1
    if spent + reserved + at_most <= max_cost + slack:
        return True
    if spent + probably > max_cost + slack:
        return False
    return None if running else True
