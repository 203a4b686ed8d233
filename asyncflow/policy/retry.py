"""Whether a failed attempt is repeated, and after how long: a frozen value and a pure function."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from asyncflow.errors import TransientError

#: What `on` takes: an exception class, several, or a predicate.
RetryOn: TypeAlias = "type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]"

#: What is repeated where `on` is not given: a passing failure of the world, not a bug in the program.
TRANSIENT: tuple[type[BaseException], ...] = (TimeoutError, ConnectionError, OSError, TransientError)


@dataclass(frozen=True, slots=True)
class Retry:
    """How often an item is attempted and how long it waits in between.

    The wait after attempt n is `min(max_wait, wait * factor ** (n - 1))`, shortened by a random share of up
    to `jitter`, so that items which failed together do not come back together. An error's own `retry_after`
    (seconds) is respected: the item waits at least that long.

    Args:
        attempts: Attempts in all, the first included; at least 1.
        wait: Seconds before the second attempt.
        factor: What the wait is multiplied by each time, at least 1.
        max_wait: Seconds that the wait never exceeds, `retry_after` apart.
        jitter: Share of the wait that is random, in [0, 1].
        on: What is repeated: an exception class, a tuple of them, or a predicate `on(error) -> bool`.
            By default TimeoutError, ConnectionError, OSError and asyncflow's TransientError. Only
            exceptions derived from Exception are ever repeated, and never one whose `exhausted` is true:
            its client has tried often enough.

    Raises:
        ValueError: If a number is out of its range.
        TypeError: If `on` is none of the three.

    Example:
        >>> Retry(attempts=3, wait=1.0, jitter=0).wait_after(1, TimeoutError())
        1.0
        >>> Retry(attempts=3, wait=1.0, jitter=0).wait_after(3, TimeoutError()) is None
        True
        >>> Retry(on=KeyError).wait_after(1, TimeoutError()) is None
        True
    """

    attempts: int = 3
    wait: float = 0.5
    factor: float = 2.0
    max_wait: float = 60.0
    jitter: float = 0.25
    on: RetryOn = TRANSIENT

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int):
            raise TypeError(f"Retry(attempts={self.attempts!r}): a whole number is needed")
        if self.attempts < 1:
            raise ValueError(
                f"Retry(attempts={self.attempts!r}): attempts counts the first one too, so it is at least 1"
            )
        for name, low, high in (
            ("wait", 0.0, math.inf),
            ("factor", 1.0, math.inf),
            ("max_wait", 0.0, math.inf),
            ("jitter", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"Retry({name}={value!r}): a number is needed")
            if not low <= value <= high:  # also refuses NaN
                raise ValueError(f"Retry({name}={value!r}): it must lie in [{low:g}, {high:g}]")
        if isinstance(self.on, type) and not issubclass(self.on, BaseException):
            raise TypeError(f"Retry(on={self.on!r}): a class of exceptions is needed, or a function")
        classes = self.on if isinstance(self.on, tuple) else (self.on,)
        if not callable(self.on) and not all(
            isinstance(kind, type) and issubclass(kind, BaseException) for kind in classes
        ):
            raise TypeError(
                f"Retry(on={self.on!r}): give an exception class, a tuple of them, or a function that takes "
                "the exception and returns whether to repeat"
            )

    @classmethod
    def constant(cls, attempts: int, wait: float = 0.0) -> Retry:
        """PocketFlow's rule: any Exception, always the same wait.

        Example:
            >>> Retry.constant(2, 5.0).wait_after(1, KeyError())
            5.0
        """
        return cls(attempts, wait, 1.0, math.inf, 0.0, Exception)

    def repeats(self, error: BaseException) -> bool:
        """Whether `on` names this error, leaving aside how many attempts there were."""
        if not isinstance(error, Exception) or getattr(error, "exhausted", False) is True:
            return False
        if isinstance(self.on, (type, tuple)):
            return isinstance(error, self.on)
        return bool(self.on(error))

    def wait_after(
        self, attempt: int, error: BaseException, uniform: Callable[[], float] = random.random
    ) -> float | None:
        """Seconds to wait before the next attempt, or None if there is none.

        Args:
            attempt: The attempt that failed, from 1.
            error: What it raised.
            uniform: Where randomness comes from: a function that returns a float in [0, 1).
        """
        if attempt >= self.attempts or not self.repeats(error):
            return None
        try:
            wait = min(self.max_wait, self.wait * self.factor ** (attempt - 1))
        except OverflowError:
            wait = self.max_wait
        spread = wait * self.jitter * uniform()
        asked = getattr(error, "retry_after", None)
        if isinstance(asked, (int, float)) and math.isfinite(asked) and asked >= wait - spread:
            return asked + spread  # never earlier than asked, and not all at once
        return wait - spread
