"""When to stop before the last epoch, and the model as it was at its best."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from asyncflow.compute.checks import Array
from asyncflow.compute.sequential import load_arrays


class EarlyStopping:
    """The best loss so far, the model's arrays at that time, and the epochs since."""

    def __init__(
        self, best: float | None = None, since: int = 0, *, arrays: dict[str, Array] | None = None
    ) -> None:
        self.best, self.since = best, since
        self.arrays: dict[str, Array] = arrays or {}

    def see(self, loss: float, min_delta: float, model: Any) -> None:
        if not math.isnan(loss) and (self.best is None or loss < self.best - min_delta):
            self.best, self.since = loss, 0
            self.arrays = {name: np.array(a) for name, a in model.arrays().items()}
        else:
            self.since += 1

    def over(self, patience: int | None) -> bool:
        return patience is not None and self.since >= patience

    def restore(self, model: Any) -> None:
        if self.arrays:
            load_arrays(model.arrays(), self.arrays)

    def state(self) -> list[Any]:
        return [self.best, self.since]
