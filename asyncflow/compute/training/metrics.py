"""What an evaluation measures, and its mean over batches of any size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from asyncflow.compute.checks import Array
from asyncflow.errors import ShapeError

#: From prediction and target to a mean over the batch's rows.
Metric = Callable[[Array, Any], float]


def accuracy(scores: Array, targets: Array) -> float:
    """The share of rows whose largest score is at the target's index.

    Args:
        scores: Shape (n, classes).
        targets: Class indices, shape (n,).

    Example:
        >>> accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
        0.5
    """
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.ndim != 2 or targets.shape != scores.shape[:1]:
        raise ShapeError(
            f"targets must hold one index per row of scores, got {targets.shape} and {scores.shape}"
        )
    return float((scores.argmax(axis=1) == targets).mean()) if len(scores) else float("nan")


class Mean:
    """A mean over samples, from means over batches."""

    def __init__(self) -> None:
        self.sum = self.weight = 0.0

    def add(self, mean: float, weight: float) -> None:
        if weight:
            self.sum += mean * weight
            self.weight += weight

    @property
    def value(self) -> float:
        return self.sum / self.weight if self.weight else float("nan")
