"""What became of one item: `Ok`, `Failed` or `Skipped`; and what was spent on it.

`stream` yields them; `amap` and batch nodes put `Failed` in the place of a result under
`on_error="continue"`. All three are frozen and know their item, so nobody has to count along.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ok(Generic[T]):
    """The item's result.

    Attributes:
        value: What the step returned (a fallback's result counts: the item has one).
        index: Position in the input, from 0.
        key: The item's stable name across runs, or None where no `key` was given.
        item: The item itself.
        attempts: How many attempts it took, from 1.
    """

    value: T
    index: int = 0
    key: Any = None
    item: Any = None
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Failed:
    """The item's last error. It keeps no frames alive: locals of the failed call are gone.

    Attributes:
        error: The item's own exception, without its traceback.
        index, key, item, attempts: As in `Ok`.
        traceback: Where it was raised, as text, one line per frame.
    """

    error: BaseException
    index: int = 0
    key: Any = None
    item: Any = None
    attempts: int = 1
    traceback: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Skipped:
    """The item was not run, for a reason that is not its own (a budget that is spent, for instance).

    Attributes:
        reason: One word or two, stable enough to count by.
        index, key, item, attempts: As in `Ok`; `attempts` is 0 where none was made.
    """

    reason: str
    index: int = 0
    key: Any = None
    item: Any = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Spent:
    """What calls to models have used up.

    Attributes:
        input_tokens, output_tokens: Read and written.
        cached_input_tokens: Those of `input_tokens` that came from the provider's prompt cache.
        cost: Money in the currency of the client's price, or None where there is no price.

    Example:
        >>> Spent(10, 2, cost=0.5) + Spent(1, 1)
        Spent(input_tokens=11, output_tokens=3, cached_input_tokens=0, cost=0.5)
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cost: float | None = None

    def __add__(self, other: Spent) -> Spent:
        costs = [each.cost for each in (self, other) if each.cost is not None]
        return Spent(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            sum(costs) if costs else None,
        )


Outcome: TypeAlias = Ok[T] | Failed | Skipped
