"""A circuit breaker: after so many failures in a row nothing is sent any more, except now and then a probe.

Source: Nygard, Release It! (2018), "Circuit Breaker". Pure; every method takes the moment.
"""

from __future__ import annotations

import math


class Breaker:
    """Closed (calls go), open (none goes), or probing (one goes, and its end decides).

    What counts as a failure is the caller's business; an answer of any kind is none. Calls are known by the
    number of their start: an answer to one that started before the failures began says nothing about them.

    Args:
        failures: In a row, that open it.
        wait: Seconds before the first probe; twice as long after each that fails.
        longest: Seconds that this wait does not exceed.

    Example:
        >>> breaker = Breaker(failures=2, wait=5.0)
        >>> breaker.failed(1.0, call=1), breaker.failed(1.5, call=2)
        (False, True)
        >>> breaker.ready_at(), breaker.started()
        (6.5, True)
        >>> breaker.answered(call=3)
        True
        >>> breaker.state
        'closed'
    """

    __slots__ = (
        "_failures",
        "_first",
        "_longest",
        "_threshold",
        "_until",
        "_wait",
        "_waits",
        "opened_at",
        "state",
    )

    def __init__(self, *, failures: int = 20, wait: float = 5.0, longest: float = 60.0) -> None:
        if failures < 1 or not 0 < wait <= longest < math.inf:
            raise ValueError(f"Breaker(failures={failures!r}, wait={wait!r}, longest={longest!r})")
        self._threshold = failures
        self._longest = longest
        self._wait = wait
        self._waits = 0  # probes failed since it opened
        self._failures = 0
        self._first = 0  # the first call of those
        self._until = -math.inf
        #: When it opened, or None while it is closed.
        self.opened_at: float | None = None
        self.state = "closed"

    @property
    def failures(self) -> int:
        """Failures in a row by now."""
        return self._failures

    def ready_at(self) -> float:
        """When the next call may start: `inf` while a probe is under way."""
        return math.inf if self.state == "probing" else self._until

    def started(self) -> bool:
        """A call starts. True: it is the probe, and how it ends has to be told with `probe=True`."""
        if self.state != "open":
            return False
        self.state = "probing"
        return True

    def failed(self, now: float, call: int, *, probe: bool = False) -> bool:
        """A call failed. True: the breaker is open from now on, or for longer."""
        self._first = min(self._first, call) if self._failures else call
        self._failures += 1
        if self.state == "closed":
            if self._failures < self._threshold:
                return False
        elif not probe:
            return False  # one that was under way when it opened
        if self.opened_at is None:
            self.opened_at = now
        self.state = "open"
        self._until = now + min(self._longest, self._wait * 2.0 ** min(self._waits, 60))
        self._waits += 1
        return True

    def answered(self, call: int) -> bool:
        """A call was answered. True: the breaker closes by it."""
        if self._failures and call < self._first:
            return False
        self._failures = 0
        if self.state == "closed":
            return False
        self.state = "closed"
        self._until = -math.inf
        self._waits = 0
        self.opened_at = None
        return True

    def abandoned(self) -> None:
        """The probe ended without telling anything (it was cancelled): the next call is the probe."""
        if self.state == "probing":
            self.state = "open"

    def probe(self, now: float) -> None:
        """Let one call through now, and the others once it is answered."""
        if self.state != "probing":
            self.state = "open"
        self._until = now
        self.opened_at = now
        self._waits = 0
