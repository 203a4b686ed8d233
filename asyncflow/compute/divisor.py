"""What a loss was divided by, told by the loss itself.

The mean loss of a batch is a sum divided by the number of rows, or by the sum of their classes' weights
without the ignored ones. Averaging and accumulating over batches is exact only with that number. The losses
of this package note it in a context variable, and whoever called them may read it: their signature stays
`(prediction, target) -> (loss, gradient)`, whatever lambda or partial is around it.
"""

from __future__ import annotations

from contextvars import ContextVar

_noted: ContextVar[list[float] | None] = ContextVar("asyncflow_compute_divisors", default=None)


def note(divisor: float) -> None:
    """Say what a mean was divided by, if somebody listens."""
    noted = _noted.get()
    if noted is not None:
        noted.append(divisor)


class Listening:
    """Collects the divisors noted inside a `with` block."""

    def __enter__(self) -> Listening:
        self.divisors: list[float] = []
        self._token = _noted.set(self.divisors)
        return self

    def __exit__(self, *_: object) -> None:
        _noted.reset(self._token)

    def weight(self, rows: int) -> float:
        """The divisor if one loss was computed; the number of rows if none or several were."""
        return self.divisors[0] if len(self.divisors) == 1 else float(rows)
