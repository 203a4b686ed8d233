"""How long each part of one HTTP exchange may take: a frozen value, finite unless the user says otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

#: `request.extensions[TOTAL]`: seconds for the whole attempt, which httpx has no word for.
TOTAL = "asyncflow.total"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds for each part of one attempt.

    The clock of an attempt starts when the attempt is made, so waiting for a slot, for a rate limit or
    for the next attempt is never part of it.

    Args:
        connect: Until the connection stands: name lookup, TCP and TLS.
        write: Between two pieces of the body being taken by the other side.
        read: Between two pieces of the answer, the wait for its first byte included.
        total: The attempt from its start to the last byte. It also ends an answer that trickles.

    Raises:
        ValueError: If one of them is not above 0. `math.inf` switches one off.

    Example:
        >>> Timeouts(read=20).read
        20
        >>> Timeouts.of(30).total
        30
    """

    connect: float = 10.0
    write: float = 60.0
    read: float = 300.0
    total: float = 600.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"Timeouts({field.name}={value!r}): a number of seconds is needed")
            if not value > 0:  # also refuses NaN
                raise ValueError(f"Timeouts({field.name}={value!r}): it must be above 0 (math.inf: no limit)")

    @classmethod
    def of(cls, value: Timeouts | float | None) -> Timeouts:
        """What a `timeout=` argument means: None the defaults, a number the total, a `Timeouts` itself."""
        if value is None:
            return cls()
        if isinstance(value, Timeouts):
            return value
        return cls(total=value)

    def as_httpx(self) -> dict[str, float | None]:
        """The same as httpx's `timeout` extension of a request, which knows no total.

        Example:
            >>> Timeouts(connect=1, write=2, read=3, total=4).as_httpx()
            {'connect': 1, 'read': 3, 'write': 2, 'pool': 1}
        """
        connect = _finite(self.connect)
        return {
            "connect": connect,
            "read": _finite(self.read),
            "write": _finite(self.write),
            "pool": connect,
        }


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None
