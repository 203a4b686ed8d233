"""One place of work: a worker's, or the calling task's for a step of its own.

A `Slot` knows which item it holds and which attempt it is at. It stands behind `waiting`, `cur_retry` and the
timeouts; `Deadlines` is the one timer that any number of slots share.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from asyncflow.engine.cap import Cap
from asyncflow.engine.context import INNER_WORK, Run
from asyncflow.engine.counts import Counted
from asyncflow.engine.journal import Place
from asyncflow.engine.parking import Parked
from asyncflow.engine.step import Step
from asyncflow.engine.tasks import Host, Interrupt
from asyncflow.errors import ItemTimeoutError
from asyncflow.events import ItemResumed, ItemWaiting
from asyncflow.outcome import Spent
from asyncflow.threads import ThreadPool
from asyncflow.waiting import current


class Deadlines:
    """One timer for any number of slots: it looks at them when the earliest of their deadlines has come."""

    def __init__(self, host: Host, slots: set[Slot]) -> None:
        self._host = host
        self._slots = slots
        self._at = math.inf
        self._cancel: Callable[[], None] | None = None

    def watch(self, deadline: float) -> None:
        """Be there at `deadline`."""
        if deadline < self._at:
            self.close()
            self._at = deadline
            self._cancel = self._host.call_later(deadline - self._host.now(), self._look)

    def _look(self) -> None:
        self._cancel, self._at = None, math.inf
        now = self._host.now()
        for slot in tuple(self._slots):
            if slot.deadline <= now:
                slot.expire(now)
        self.watch(min((slot.deadline for slot in self._slots), default=math.inf))

    def close(self) -> None:
        if self._cancel is not None:
            self._cancel()
            self._cancel = None


class Slot:
    """See the module. Implements `waiting.Waiter`."""

    __slots__ = (
        "attempt",
        "crowd",
        "deadline",
        "deadlines",
        "expired",
        "flight",
        "holding",
        "in_line",
        "index",
        "interrupt",
        "item",
        "key",
        "paused",
        "place",
        "run",
        "spent",
        "step",
        "threads",
        "total_deadline",
    )

    def __init__(
        self,
        run: Run,
        step: Step,
        deadlines: Deadlines | None,
        threads: ThreadPool | None,
        crowd: Counted | None = None,
    ) -> None:
        self.run = run
        self.step = step
        self.deadlines = deadlines
        self.threads = threads
        self.crowd = crowd
        self.index = 0
        self.item: Any = None
        self.key = b""
        #: Who is told of each attempt that is about to begin; None: nobody, or its worker has told already.
        self.place: Place | None = None
        #: Where the item is in flight, and rests while it only waits; None: nowhere.
        self.flight: Place | None = None
        self.attempt = 1
        self.deadline = self.total_deadline = math.inf
        self.expired: str | None = None
        self.holding = False
        self.paused: list[_Pause] = []
        self.interrupt: Interrupt | None = None
        #: While it waits for its turn in a lane: what ends that.
        self.in_line: Interrupt | None = None
        self.spent: Spent | None = None

    def begin(self) -> None:
        """The attempt has all that it queued for, and begins."""
        if self.place is not None:
            self.place.begin(self.key)

    def take_up(self, parked: Parked) -> None:
        """Hold an item that was parked."""
        self.index, self.item, self.key = parked.index, parked.item, parked.key
        self.attempt, self.total_deadline = parked.attempt, parked.total_deadline
        self.spent = parked.spent

    def put_down(self) -> Parked:
        """Let go of the item, which waits for its next attempt."""
        spent, self.spent = self.spent, None
        return Parked(self.index, self.item, self.attempt + 1, self.total_deadline, self.key, spent)

    @property
    def owner(self) -> object:
        """The node that may ask for `cur_retry` here."""
        return self.step.owner

    @property
    def name(self) -> Any:
        """The item's key, by the user's function; None where there is none."""
        return None if self.step.key is None else self.step.key(self.item)

    def start_clock(self) -> None:
        """The attempt runs from here on."""
        step, now = self.step, self.run.host.now()
        if step.total_timeout is not None and self.total_deadline == math.inf:
            self.total_deadline = now + step.total_timeout
        deadline = now + step.timeout if step.timeout is not None else math.inf
        self.deadline = min(deadline, self.total_deadline)
        self._watch()

    def _watch(self) -> None:
        if self.deadline < math.inf and self.deadlines is not None:
            self.deadlines.watch(self.deadline)

    def expire(self, now: float) -> None:
        """The attempt's time is over: end it."""
        self.deadline = math.inf
        self.expired = "total" if self.total_deadline <= now else "attempt"
        if self.interrupt is not None:
            self.interrupt.fire()

    def leave_line(self) -> None:
        """Wait for a turn no longer: nothing begins any more."""
        in_line, self.in_line = self.in_line, None
        if in_line is not None:
            in_line.fire()

    def timeout_error(self) -> ItemTimeoutError:
        step = self.step
        if self.expired == "total":
            seconds, what = step.total_timeout, "all attempts together"
        else:
            seconds, what = step.timeout, f"attempt {self.attempt}"
        return ItemTimeoutError(
            f"{step.name}, item {self.index}: {what} took longer than {seconds:g} seconds",
            scope=self.expired or "attempt",
            seconds=seconds or 0.0,
        )

    def end(self) -> None:
        """The attempt is over, however it ended."""
        self.deadline = math.inf
        while self.paused:  # a cancelled `resume` leaves its block without a slot
            self._unpause(self.paused.pop())
        if self.holding:
            self.holding = False
            if self.run.cap is not None:
                self.run.cap.release()

    # waiting.Waiter ----------------------------------------------------------------------------------------

    def pause(self, reason: str, *, release: bool = True) -> None:
        run = self.run
        now = run.host.now()
        self.paused.append(_Pause(now, self.deadline, release and self.holding))
        self.deadline = math.inf
        if len(self.paused) > 1:
            return
        if self.flight is not None and reason != INNER_WORK:
            self.flight.rests(self.key)
        if self.paused[0].released and run.cap is not None:
            self.holding = False
            run.cap.release()
        if self.crowd is not None:
            self.crowd.waiting += 1
        if run.tell is not None:
            run.tell(ItemWaiting(run.path, now, self.index, reason, run.branches))

    async def resume(self) -> None:
        if not self.paused:
            return
        if len(self.paused) == 1 and self.paused[0].released and self.run.cap is not None:
            await self.run.cap.acquire()
            self._granted(self.run.cap)
        if self.paused:
            self._unpause(self.paused.pop())

    def resume_then(self, done: Callable[[], None]) -> None:
        """As `resume`, for code that cannot await: `done` is called when it may go on."""
        if len(self.paused) == 1 and self.paused[0].released and self.run.cap is not None:
            self.run.cap.acquire_then(partial(self._resumed, done))
        else:
            if self.paused:
                self._unpause(self.paused.pop())
            done()

    def _resumed(self, done: Callable[[], None]) -> None:
        if self.run.cap is not None:
            self._granted(self.run.cap)
        if self.paused:
            self._unpause(self.paused.pop())
        done()

    def _granted(self, cap: Cap) -> None:
        """A slot is there: keep it, unless meanwhile the attempt has ended, or another task of it waits."""
        if len(self.paused) == 1:
            self.holding = True
        else:
            cap.release()

    def _unpause(self, pause: _Pause) -> None:
        run = self.run
        now = run.host.now()
        self.deadline = pause.deadline + (now - pause.at)  # infinity stays what it is
        if self.paused:
            return
        if self.flight is not None:
            self.flight.goes_on(self.key)
        self.total_deadline += now - pause.at
        self._watch()
        if self.crowd is not None:
            self.crowd.waiting -= 1
        if run.tell is not None:
            run.tell(ItemResumed(run.path, now, self.index, run.branches))

    def spend(
        self, input_tokens: int, output_tokens: int, cached_input_tokens: int, cost: float | None
    ) -> None:
        more = Spent(input_tokens, output_tokens, cached_input_tokens, cost)
        self.spent = more if self.spent is None else self.spent + more
        self.run.counts.spent += more
        if self.run.around is not None:  # what an exec has begun itself is part of what it spends
            self.run.around.spend(input_tokens, output_tokens, cached_input_tokens, cost)

    # A plain exec on this very thread: nothing else runs meanwhile, so the slot stays where it is.

    def pause_from_thread(self, reason: str) -> None:
        self.pause(reason, release=False)

    def resume_from_thread(self) -> None:
        if self.paused:
            self._unpause(self.paused.pop())


@dataclass(frozen=True, slots=True)
class _Pause:
    at: float
    deadline: float
    released: bool


class OnThread:
    """What stands behind `waiting` and `cur_retry` on a worker thread: one job's view of its slot.

    The slot goes on to other items when a timeout gives the job up; from then on this is a dead letter.
    """

    __slots__ = ("_queued", "_slot", "attempt", "live", "owner", "run")

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self.run = slot.run
        self.owner = slot.owner
        self.attempt = slot.attempt
        self.live = True
        self._queued = slot.run.host.now()

    def call(self, function: Callable[[Any], Any], item: Any) -> Any:
        """Run on the worker thread, in a context of its own."""
        current.set(self)
        return function(item)

    def started(self) -> None:
        """A job that had to queue begins: its clock runs from now."""
        self._post(self._start_clock)

    def _start_clock(self) -> None:
        self._slot.total_deadline += self.run.host.now() - self._queued  # no timeout runs while it queues
        self._slot.start_clock()

    def _post(self, callback: Callable[[], None]) -> None:
        self.run.host.from_thread(lambda: callback() if self.live else None)

    def pause(self, reason: str) -> None:
        self.pause_from_thread(reason)

    async def resume(self) -> None:
        """For code that runs an event loop of its own on this thread, which it blocks."""
        self.resume_from_thread()

    def pause_from_thread(self, reason: str) -> None:
        self._post(lambda: self._slot.pause(reason))

    def spend(
        self, input_tokens: int, output_tokens: int, cached_input_tokens: int, cost: float | None
    ) -> None:
        self._post(lambda: self._slot.spend(input_tokens, output_tokens, cached_input_tokens, cost))

    def resume_from_thread(self) -> None:
        if not self.live:
            return  # nobody waits for the job any longer, and its run may have ended
        resumed = threading.Event()

        def resume() -> None:
            if self.live:
                self._slot.resume_then(resumed.set)
            else:
                resumed.set()

        self.run.host.from_thread(resume)
        resumed.wait()
