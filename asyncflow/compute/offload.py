"""Running maths off the event loop, and seeing how that goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from asyncflow.compute import lag, tiles
from asyncflow.compute.calls import Call

P = ParamSpec("P")
R = TypeVar("R")


async def offload(fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """`fn(*args, **kwargs)` on a thread, while the event loop goes on.

    Context variables are those of the caller, so `workers`, `kernels` and `np.errstate` hold inside. Calls
    share one budget with tiles and loaders, as many at once as there are processors; more wait their turn.
    Works on asyncio and trio.

    Cancelling takes the call back if it has not begun. If it runs it cannot be stopped: the cancellation
    is raised when it has ended, so an array it writes to is not used by anybody else before.

    Returns:
        What fn returns. What it raises is raised.

    Example:
        >>> import asyncio
        >>> import numpy as np
        >>> from asyncflow.compute import offload, softmax
        >>> asyncio.run(offload(softmax, np.zeros(2)))
        array([0.5, 0.5])
    """
    result: R = await Call(partial(fn, *args, **kwargs)).result_async()
    return result


@dataclass(frozen=True, slots=True)
class ComputeStatistics:
    """What the compute budget of this process is doing, and how the event loop fared beside it.

    Attributes:
        limit: Threads that may run beside the callers, as many as there are processors.
        running: How many do now.
        queued: How many calls wait for one.
        loop_lag_max: Seconds the event loop was late at worst while work was offloaded from it.
        loop_lag_p99: The 99th of a hundred such delays.
        loop_lag_samples: How many were measured (at most the last 4096 are kept).
    """

    limit: int
    running: int
    queued: int
    loop_lag_max: float
    loop_lag_p99: float
    loop_lag_samples: int


def statistics(*, reset: bool = False) -> ComputeStatistics:
    """The state of the compute budget now; `reset=True` forgets the measured delays afterwards.

    Example:
        >>> statistics().queued
        0
    """
    now = tiles.budget.statistics()
    record = ComputeStatistics(now.limit, now.running, now.queued, *lag.lateness())
    if reset:
        lag.forget()
    return record
