"""How late the event loop is while work runs beside it, measured and not assumed.

While a loop waits for offloaded work, a timer on it fires every 10 ms and notes by how much it was late.
With nothing offloaded there is no timer.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from weakref import WeakKeyDictionary

_INTERVAL = 0.01

#: Seconds late, the newest last. Appending to a deque is atomic, and one entry more or less is no harm.
_late: deque[float] = deque(maxlen=4096)


class _Probe:
    """The timer of one loop; runs while anybody waits."""

    def __init__(self) -> None:
        self.waiting = 0
        self.timer: asyncio.TimerHandle | None = None

    def enter(self, loop: asyncio.AbstractEventLoop) -> None:
        self.waiting += 1
        if self.timer is None:
            self.timer = loop.call_later(_INTERVAL, self._fire, loop, time.perf_counter() + _INTERVAL)

    def leave(self) -> None:
        self.waiting -= 1
        if self.waiting == 0 and self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _fire(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = time.perf_counter()
        _late.append(max(0.0, now - due))
        self.timer = loop.call_later(_INTERVAL, self._fire, loop, now + _INTERVAL)


_probes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Probe] = WeakKeyDictionary()


def probe(loop: asyncio.AbstractEventLoop) -> _Probe:
    """The probe of a running loop."""
    return _probes.setdefault(loop, _Probe())


def lateness() -> tuple[float, float, int]:
    """The largest delay, the 99th of a hundred, and how many were measured, over the last 4096."""
    seen = sorted(_late)
    if not seen:
        return 0.0, 0.0, 0
    return seen[-1], seen[min(len(seen) - 1, len(seen) * 99 // 100)], len(seen)


def forget() -> None:
    """Drop what was measured."""
    _late.clear()
