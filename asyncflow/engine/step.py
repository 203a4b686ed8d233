"""What is done with each item: a frozen description that pools, slots and attempts share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from asyncflow.engine.context import Run
from asyncflow.policy.retry import Retry

if TYPE_CHECKING:
    from asyncflow.policy.limits import Limits


class Mode(Enum):
    """How a step's call is made."""

    AWAIT = "await"  # a coroutine function
    INLINE = "inline"  # a plain function, on the calling thread
    THREAD = "thread"  # a plain function, on a worker thread


ONCE = Retry.constant(1)


@dataclass(slots=True, kw_only=True)
class Step:
    """What is done with each item. Built once per run of a node, never changed.

    Attributes:
        call: Called as `call(item)`.
        fallback: Called as `fallback(item, error)` after the last attempt; it returns the item's value or
            raises. None: the error stands.
        fallback_mode: How the fallback is called.
        name: How people call it: the node's name, the function's.
        limits: Lanes (`asyncflow.policy.Limits`); each attempt runs in the one without a provider, which
            needs an event loop.
        owner: Who asks for `cur_retry`: the node, or None.
        exec: Whether the call is an `exec`. A run of a flow is not: it takes no slot and is not counted.
        key: The user's function from an item to its key in the journal; None: the content is the key.
        result_type: What the call returns, for the journal; None: what its annotation says.
        atomic: Whether the pool must not let others run where the call does not.
        adapt: Applied to what a thread returned, on the host's side: amap awaits an awaitable there.
    """

    call: Callable[[Any], Any]
    name: str
    mode: Mode = Mode.AWAIT
    fallback: Callable[[Any, Exception], Any] | None = None
    fallback_mode: Mode = Mode.AWAIT
    retry: Retry = ONCE
    timeout: float | None = None
    total_timeout: float | None = None
    limits: Limits | None = None
    owner: object = None
    exec: bool = True
    key: Callable[[Any], Any] | None = None
    result_type: Any = None
    atomic: bool = False
    adapt: Callable[[Any], Awaitable[Any]] | None = None

    @property
    def timed(self) -> bool:
        return self.timeout is not None or self.total_timeout is not None

    def guarded(self, run: Run) -> bool:
        """Whether an attempt needs more than the bare call."""
        capped = self.exec and run.cap is not None
        return (
            capped
            or self.limits is not None
            or run.tell is not None
            or self.mode is Mode.THREAD
            or self.timed
        )
