"""Items that are under suspicion of ending the process run with nothing else in flight.

Only a resumed run whose journal knows of such items has an `Alone`; no other run pays for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from asyncflow.engine.journal import Verdict
from asyncflow.engine.parking import Parked


class Alone:
    """Who may begin now, over all nodes of a run.

    A lock for readers and writers, the writers first: an ordinary item is begun until it has its outcome,
    the waits between its attempts included; a suspect begins when nothing is, and until it ends nothing else
    does. Items are known by their keys in the journal.
    """

    def __init__(self) -> None:
        self._begun: set[bytes] = set()
        self._queue: deque[bytes] = deque()
        self._listeners: list[Callable[[], None]] = []

    @property
    def closed(self) -> bool:
        """Whether a suspect waits or runs, so that no ordinary item may begin."""
        return bool(self._queue)

    def line_up(self, key: bytes) -> None:
        """Here is a suspect."""
        self._queue.append(key)

    def lets(self, key: bytes) -> bool:
        """Let this item begin, if it may now."""
        if self._queue and (self._queue[0] != key or self._begun):
            return False
        self._begun.add(key)
        return True

    def leave(self, key: bytes) -> None:
        """This item has its outcome, or was given up."""
        self._begun.discard(key)
        if key in self._queue:
            self._queue.remove(key)
        for changed in tuple(self._listeners):
            changed()

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have `changed` called when others may begin. Returns how to end it."""
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed)

    def __repr__(self) -> str:
        return f"<Alone {len(self._begun)} begun, {len(self._queue)} suspects waiting or at work>"


class Turns:
    """One pool's items at the gate: those that may not begin yet are kept here.

    Args:
        gate: That of the run. Where calls are made in place nothing else goes on meanwhile, so nobody else
            need be waited for, and nobody could be: such a pool has a gate of its own.
        changed: Called when one that is kept here may begin.
    """

    __slots__ = ("_aside", "_close", "_entered", "_gate")

    def __init__(self, gate: Alone, changed: Callable[[], None]) -> None:
        self._gate = gate
        self._aside: deque[Parked] = deque()
        self._entered: set[bytes] = set()
        self._close = gate.listen(changed)

    def __len__(self) -> int:
        return len(self._aside)

    @property
    def closed(self) -> bool:
        return self._gate.closed

    def admits(self, parked: Parked, verdict: Verdict) -> bool:
        """Whether this item may begin now; if not, `next` returns it when it may."""
        if verdict == "alone":
            self._gate.line_up(parked.key)
        if self._lets(parked):
            return True
        self._aside.append(parked)
        return False

    def next(self) -> Parked | None:
        """One that was kept and may begin now."""
        for parked in self._aside:
            if self._lets(parked):
                self._aside.remove(parked)
                return parked
        return None

    def leave(self, key: bytes) -> None:
        """An item that began has its outcome, or was given up."""
        self._entered.discard(key)
        self._gate.leave(key)

    def give_up(self) -> int:
        """Drop all that are kept here. Returns how many there were."""
        count = len(self._aside)
        while self._aside:
            self._gate.leave(self._aside.pop().key)
        return count

    def close(self) -> None:
        """The pool is done, with whatever was at work in it."""
        self._close()
        self.give_up()
        while self._entered:
            self._gate.leave(self._entered.pop())

    def _lets(self, parked: Parked) -> bool:
        if not self._gate.lets(parked.key):
            return False
        self._entered.add(parked.key)
        return True
