"""Every exception that asyncflow raises of its own, drawn as a tree.

    AsyncflowError
    ├─ FlowError                     the graph is wrong
    │  ├─ MissingStartError          a flow was run without a start node
    │  ├─ ActionError                post returned an action that is not a string (a TypeError)
    │  └─ StepLimitError             a flow took more than max_steps steps
    ├─ ItemError                     one item failed for a reason of the engine's own
    │  ├─ ItemTimeoutError           timeout or total_timeout ran out (a TimeoutError)
    │  ├─ ItemCancelledError         exec raised CancelledError though nobody cancelled it
    │  └─ CoroutineReturnedError     a synchronous step returned a coroutine (a TypeError)
    ├─ TooManyFailuresError          on_error's count or share was reached; carries .outcomes
    ├─ ArrayError                    an array handed to compute does not fit
    │  ├─ ShapeError                 its shape is not the one needed (a ValueError)
    │  ├─ DtypeError                 its dtype is not the one needed (a TypeError)
    │  └─ RangeError                 a number in it, or an argument, is out of range (a ValueError)
    ├─ NotSupportedError             an argument whose part of asyncflow cannot be used here (a ValueError)
    └─ TransientError                trying again may help; carries .retry_after and .exhausted

What a user's own code raises is passed on as it is, with a note (see `Failed` and DESIGN decision 6).
Wrong arguments are plain ValueError and TypeError. Cancellation is never an error here. Every class
survives pickle: fields are keyword arguments with defaults, so `args` alone rebuild the object.
"""

from __future__ import annotations

from typing import Any


class AsyncflowError(Exception):
    """Base of every exception in this module."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)


class FlowError(AsyncflowError):
    """The graph is wrong: nothing about one item, everything about how nodes are joined."""


class MissingStartError(FlowError):
    """A flow was run, drawn or checked without a start node."""


class ActionError(FlowError, TypeError):
    """A `post` returned something that cannot name an action, where a successor had to be looked up."""


class StepLimitError(FlowError):
    """A flow took more than `max_steps` steps, so a loop in it does not end."""


class ItemError(AsyncflowError):
    """One item failed for a reason of the engine's own, not through an exception of the user's."""


class ItemTimeoutError(ItemError, TimeoutError):
    """An attempt took longer than `timeout`, or all attempts together longer than `total_timeout`.

    Attributes:
        scope: `"attempt"` or `"total"`.
        seconds: The limit that was passed.
    """

    def __init__(self, message: str = "", *, scope: str = "attempt", seconds: float = 0.0) -> None:
        super().__init__(message)
        self.scope = scope
        self.seconds = seconds


class ItemCancelledError(ItemError):
    """`exec` raised CancelledError although nobody had cancelled it, so its item has failed."""


class CoroutineReturnedError(ItemError, TypeError):
    """A synchronous `prep`, `exec` or `post` returned a coroutine, which nobody would await."""


class TooManyFailuresError(AsyncflowError):
    """As many items failed as `on_error` allows, so the call stopped.

    Attributes:
        outcomes: What became of the items that finished, in input order and not yet handed to anyone:
            every one for `amap` and nodes that collect; only the failures where a reader or `post_item`
            has already received the rest.
    """

    def __init__(self, message: str = "", *, outcomes: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.outcomes = outcomes


class ArrayError(AsyncflowError):
    """An array handed to `compute` does not fit; nothing is broadcast, cast or clipped to make it fit."""


class ShapeError(ArrayError, ValueError):
    """An array's shape is not the one needed; the message names the argument and both shapes."""


class DtypeError(ArrayError, TypeError):
    """An array's dtype is not the one needed; the message names the argument and says how to convert it."""


class RangeError(ArrayError, ValueError):
    """A number is out of its range: a class index, a probability, a rate, a count."""


class NotSupportedError(AsyncflowError, ValueError):
    """An argument names a part of asyncflow that this version or this place does not have."""


class TransientError(AsyncflowError):
    """Trying again may help: a refusal for now, a broken connection, a server's own failure.

    Attributes:
        retry_after: Seconds the other side asked to wait, or None.
        exhausted: True when the client that raised it has used up attempts of its own, so that a node
            does not multiply them.
    """

    def __init__(
        self, message: str = "", *, retry_after: float | None = None, exhausted: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.exhausted = exhausted
