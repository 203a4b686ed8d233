"""Mixed precision, honestly: float16 saves memory on a processor, and no time.

NumPy has no float16 arithmetic: its matrix product in float16 is a plain loop, many times slower than BLAS.
So layers store float16 and compute in float32, and the optimizer keeps float32 masters of float16
parameters. What is saved is the memory of data sets, activations and saved models.

Gradients that pass through float16 activations vanish below 6e-8. `LossScale` multiplies the loss gradient
by a large number and divides the parameters' gradients by it again.

Pinned memory, which the seed recommends, has no meaning here: it speeds up copies from the host to a GPU, and
NumPy arrays never leave the host. It would matter in a loader that feeds a GPU framework.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from asyncflow.compute.checks import count, positive
from asyncflow.compute.clipping import scale_gradient
from asyncflow.compute.parameter import Parameter
from asyncflow.errors import RangeError


class LossScale:
    """A scale that halves when gradients overflow and doubles after a while without.

    Args:
        initial: The first scale.
        growth: Factor after `interval` good steps, above 1.
        backoff: Factor after a step with infinite or NaN gradients, in (0, 1). That step is skipped.
        interval: Good steps in a row before the scale grows.

    Attributes:
        scale: What the loss gradient is multiplied by now.
        skipped: Steps skipped so far.

    Example:
        >>> scale = LossScale(1024.0)
        >>> p = Parameter(np.zeros(1))
        >>> p.grad[:] = 2048.0
        >>> scale.unscale([p]), p.grad
        (True, array([2.]))

    Source:
        Micikevicius et al., Mixed precision training, arXiv 1710.03740; numbers as in PyTorch's GradScaler.
    """

    def __init__(
        self, initial: float = 65536.0, *, growth: float = 2.0, backoff: float = 0.5, interval: int = 2000
    ) -> None:
        self.scale = positive("initial", initial)
        if growth <= 1 or not 0 < backoff < 1:
            raise RangeError(
                f"growth must be above 1 and backoff in (0, 1), got growth={growth!r}, backoff={backoff!r}"
            )
        self.growth, self.backoff, self.interval = growth, backoff, count("interval", interval)
        self.good = 0
        self.skipped = 0

    def unscale(self, parameters: Iterable[Parameter]) -> bool:
        """Divide the gradients by the scale, and move the scale. Returns whether the step may be made.

        If it returns False the gradients hold infinities or NaN: leave the step out and zero them.
        """
        found = list(parameters)
        if not all(np.isfinite(p.grad).all() for p in found):
            self.scale = max(self.scale * self.backoff, 1.0)
            self.good = 0
            self.skipped += 1
            return False
        for p in found:
            scale_gradient(p, 1 / self.scale)
        self.good += 1
        if self.good == self.interval:
            self.scale, self.good = self.scale * self.growth, 0
            if not math.isfinite(self.scale):
                self.scale /= self.growth
        return True

    def state_dict(self) -> dict[str, float]:
        """The scale and the counts."""
        return {"scale": self.scale, "good": self.good, "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on where `state_dict` was taken."""
        self.scale = positive("scale", state["scale"])
        self.good, self.skipped = int(state["good"]), int(state["skipped"])
