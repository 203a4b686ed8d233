"""`Limits`: who shares which limits. A set of lanes, one for each provider, key and model.

Nothing is global. Clients that are given the same `Limits` share its lanes; clients that are given none share
those of the event loop they run in, so two nodes that ask one model with one key keep one quota between them.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from typing import Literal
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from anyio.lowlevel import RunVar

from asyncflow.clock import Clock, current
from asyncflow.events import Event
from asyncflow.policy.lane import RateLane
from asyncflow.policy.settings import LaneSettings
from asyncflow.policy.status import LaneStatistics

_log = logging.getLogger("asyncflow")

#: Events that `events` keeps, the newest.
_KEPT = 1000

#: By clock: what a `FakeClock` has seen means nothing to the next one.
_of_loop: RunVar[WeakKeyDictionary[Clock, Limits]] = RunVar("asyncflow.limits")


class Limits:
    """Lanes that are shared by whoever is given this object, and their limits.

    Args:
        requests_per_minute, tokens_per_minute: The provider's quotas, for each of its lanes.
        concurrency: Calls at once, for each lane: a number, `"auto"` for a limit that finds itself, or None.
        highest: What `"auto"` never exceeds; by default 1,000.
        seed: Where the jitter of pauses starts from; None: somewhere else each time.

    Attributes:
        events: What has happened to the lanes (`LimitChanged`, `LanePaused`, …), the newest last.

    Example:
        >>> limits = Limits(requests_per_minute=500)
        >>> lane = limits.lane("http://localhost/v1", "secret", "m", LaneSettings(concurrency=8))
        >>> lane is limits.lane("http://localhost/v1/", "secret", "m")
        True
        >>> limits
        <Limits 500 requests/min, lanes: m at localhost open limit=8 running=0 waiting=0 500 requests/min>
    """

    def __init__(
        self,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        concurrency: int | Literal["auto"] | None = None,
        highest: int | None = None,
        seed: int | None = None,
    ) -> None:
        self.settings = LaneSettings(requests_per_minute, tokens_per_minute, concurrency, highest)
        self.events: deque[Event] = deque(maxlen=_KEPT)
        self._lanes: dict[tuple[str, str, str], RateLane] = {}
        self._listeners: list[Callable[[Event], object]] = []
        self._random = random.Random(seed)

    @staticmethod
    def of_loop() -> Limits:
        """Those of the running event loop (and of its `FakeClock`, in one), without limits of their own.

        Raises:
            RuntimeError: If no event loop runs.
        """
        of_clock = _of_loop.get(None)
        if of_clock is None:
            of_clock = WeakKeyDictionary()
            _of_loop.set(of_clock)
        clock = current()
        found = of_clock.get(clock)
        if found is None:
            found = of_clock[clock] = Limits()
        return found

    def lane(
        self,
        base_url: str = "",
        api_key: str = "",
        model: str = "",
        settings: LaneSettings | None = None,
        *,
        stops_when_denied: bool = True,
    ) -> RateLane:
        """The lane of one provider, key and model; a new one, where there is none yet.

        Args:
            base_url: The provider's address.
            api_key: The key. Only its hash is kept.
            model: The model's name.
            settings: Limits besides those of this object. Of two the stricter counts, for everybody in the
                lane, and a `LimitChanged` says so.
            stops_when_denied: As `RateLane` takes it, where the lane is new.
        """
        key = (base_url.rstrip("/"), digest_of_key(api_key), model)
        lane = self._lanes.get(key)
        if lane is None:
            asked = self.settings if settings is None else self.settings.stricter(settings)
            lane = self._lanes[key] = RateLane(
                asked,
                name=_name(base_url, model),
                tell=self._tell,
                uniform=self._random.random,
                stops_when_denied=stops_when_denied,
            )
        elif settings is not None:
            lane.restrict(settings)
        return lane

    def listen(self, listener: Callable[[Event], object]) -> Callable[[], None]:
        """Call `listener(event)` at every event of these lanes, in their event loop; returns how to end it.

        A listener that raises is told nothing more, and a warning is logged.
        """
        self._listeners.append(listener)

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return end

    def statistics(self) -> tuple[LaneStatistics, ...]:
        """What each lane is doing, in the order in which they came to be."""
        return tuple(lane.statistics() for lane in self._lanes.values())

    def __repr__(self) -> str:
        own = self.settings
        said = [
            f"{value:g} {unit}"
            for value, unit in (
                (own.requests_per_minute, "requests/min"),
                (own.tokens_per_minute, "tokens/min"),
            )
            if value is not None
        ]
        if own.concurrency is not None:
            said.append(f"concurrency={own.concurrency}")
        lanes = "; ".join(repr(lane)[len("<RateLane ") : -1] for lane in self._lanes.values())
        return f"<Limits {', '.join([*said, f'lanes: {lanes or None}'])}>"

    def _tell(self, event: Event) -> None:
        self.events.append(event)
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                self._listeners.remove(listener)
                _log.warning(
                    "asyncflow: %r raised and is told nothing more of limits", listener, exc_info=True
                )


def digest_of_key(api_key: str) -> str:
    """A short hash by which two equal keys are known to be equal, and nothing else.

    Example:
        >>> digest_of_key("a") == digest_of_key("a") != digest_of_key("b")
        True
    """
    return blake2b(api_key.encode(), digest_size=8).hexdigest()


def _name(base_url: str, model: str) -> str:
    """What people know the lane by: never a key, nor an address's user and query."""
    parts = urlsplit(base_url)
    host = parts.netloc.rpartition("@")[2] or parts.path
    return f"{model} at {host}" if model and host else model or host
