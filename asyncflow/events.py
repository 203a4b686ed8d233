"""What a run can say, one frozen record per fact.

Observers receive these records. A record names the place it speaks of by `path`, the names from the
outermost flow to the node, and the moment by `at`, seconds on the run's monotonic clock. `branches` says
which runs of the batch flows around it that was: the index of each, outermost first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from asyncflow.outcome import Failed, Ok, Skipped


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a run, or one stream, has done so far. All counts are of items, unless said otherwise.

    At any moment `started` is the sum of `succeeded`, `failed`, `skipped`, `cancelled`, `in_flight` and
    `parked`; `waiting` items are part of `in_flight`.

    Attributes:
        started: Taken from the source.
        succeeded, failed, skipped, cancelled: How items ended; `cancelled` ones were cut off with the call.
        in_flight: Held by a worker now.
        waiting: Of those in flight, how many only wait (see `waiting`).
        parked: Between two attempts.
        recalled: Of those that ended, how many an earlier process had done: their results were read back.
        retries: Attempts beyond the first, of all items.
        steps: Steps that flows have taken.
        seconds: Time since the start.
        loop_lag: The longest a plain step has held the event loop, in seconds.
    """

    started: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    cancelled: int = 0
    in_flight: int = 0
    waiting: int = 0
    parked: int = 0
    recalled: int = 0
    retries: int = 0
    steps: int = 0
    seconds: float = 0.0
    loop_lag: float = 0.0


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A call of `run`, `amap`, `stream`, or of a node's or flow's own `run` began."""

    name: str
    at: float


@dataclass(frozen=True, slots=True)
class RunResumed:
    """The run was begun by an earlier process and goes on; `found` says with what, for people."""

    name: str
    at: float
    run_id: str
    found: str


@dataclass(frozen=True, slots=True)
class RunCompared:
    """A resumed run has come to its end without an error, and has seen all of its items.

    Attributes:
        new: Items that were not recorded before: they were not begun then, in flight, or not there.
        vanished: Items that were recorded, and are not among its items any more. Their records stay.
    """

    name: str
    at: float
    run_id: str
    new: int
    vanished: int


@dataclass(frozen=True, slots=True)
class RunFinished:
    """It ended; `error` says how, where it did not end well."""

    name: str
    at: float
    statistics: Statistics
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class NodeStarted:
    """A node or flow is about to run its items; `total` is None where their number is not known."""

    path: tuple[str, ...]
    at: float
    total: int | None
    concurrency: int
    branches: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeFinished:
    """It has run them; `error` says how, where it did not end well."""

    path: tuple[str, ...]
    at: float
    error: BaseException | None = None
    branches: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ItemStarted:
    """An attempt at an item begins. Counted from 1."""

    path: tuple[str, ...]
    at: float
    index: int
    attempt: int
    branches: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ItemRetrying:
    """An attempt failed, and the item is tried again in `wait` seconds."""

    path: tuple[str, ...]
    at: float
    index: int
    attempt: int
    wait: float
    error: BaseException
    branches: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ItemWaiting:
    """An item that runs only waits from here on; `reason` says for what."""

    path: tuple[str, ...]
    at: float
    index: int
    reason: str
    branches: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ItemResumed:
    """It works again."""

    path: tuple[str, ...]
    at: float
    index: int
    branches: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ItemFinished:
    """What became of an item."""

    path: tuple[str, ...]
    at: float
    outcome: Ok[object] | Failed | Skipped = field(repr=False)
    branches: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LoopHeld:
    """A plain step held the event loop for `seconds`, during which nothing else ran."""

    path: tuple[str, ...]
    at: float
    seconds: float
    branches: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class EventsDropped:
    """Observers were slower than the run by so much that this many events were not delivered."""

    at: float
    count: int


@dataclass(frozen=True, slots=True)
class LimitChanged:
    """A limit of a lane is another one from now on; None stands for no limit. `lane` is its name."""

    lane: str
    at: float
    limit: str
    old: float | None
    new: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class LanePaused:
    """Nothing starts in a lane for `seconds`: it was refused, or its provider fails again and again."""

    lane: str
    at: float
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class LaneResumed:
    """Calls are served in a lane again, after a pause or a stop."""

    lane: str
    at: float


@dataclass(frozen=True, slots=True)
class LaneStopped:
    """Every call in a lane fails from now on, without being sent, until a new client tries it."""

    lane: str
    at: float
    error: BaseException


Event: TypeAlias = (
    RunStarted
    | RunResumed
    | RunCompared
    | RunFinished
    | NodeStarted
    | NodeFinished
    | ItemStarted
    | ItemRetrying
    | ItemWaiting
    | ItemResumed
    | ItemFinished
    | LoopHeld
    | LimitChanged
    | LanePaused
    | LaneResumed
    | LaneStopped
    | EventsDropped
)
