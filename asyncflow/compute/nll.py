"""Negative log-likelihood from log-probabilities, for models that end in `log_softmax`."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncflow.compute.checks import Array, floating, one_of
from asyncflow.compute.losses import Loss, reduced, rows_and_classes
from asyncflow.compute.targets import index_targets


def nll_loss(
    log_probs: Array,
    targets: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Loss:
    """Minus the log-probability of each row's class.

    Args:
        log_probs: Log-probabilities in nats, shape (n, classes), floating. Not probabilities: from logits use
            `cross_entropy`, which is one step and more accurate.
        targets: Class indices in [0, classes), shape (n,), integer.
        weight: Weight of each class, shape (classes,), or None for ones.
        ignore_index: Rows with this index have loss 0 and do not count.
        reduction: `"mean"` divides by the sum of the weights of the rows' classes; `"sum"`; `"none"`.

    Example:
        >>> nll_loss(np.log(np.array([[0.5, 0.5]])), np.array([1]))
        0.6931471805599453
    """
    return _run(log_probs, targets, weight, ignore_index, reduction)[0]


def nll_loss_with_grad(
    log_probs: Array,
    targets: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> tuple[Loss, Array]:
    """The loss and its gradient for the log-probabilities: minus the weight at each row's class."""
    return _run(log_probs, targets, weight, ignore_index, reduction)


def _run(log_probs: Any, targets: Any, weight: Any, ignore_index: int, reduction: str) -> tuple[Loss, Array]:
    one_of("reduction", reduction, ("mean", "sum", "none"))
    x = floating("log_probs", log_probs)
    rows, classes = rows_and_classes("log_probs", x)
    wanted = index_targets(np.asarray(targets), rows, classes, weight, ignore_index, x.dtype)
    places = np.arange(rows), wanted.index
    with np.errstate(all="ignore"):
        scale = np.float64(1.0) if reduction != "mean" else 1.0 / np.float64(wanted.total)
        losses = np.where(wanted.row_weight == 0, 0.0, -wanted.row_weight * x[places])
        grad = np.zeros_like(x)
        grad[places] = np.where(wanted.row_weight == 0, 0.0, -wanted.row_weight * scale)
    if reduction == "none":
        return losses.astype(x.dtype), grad
    return reduced(float(losses.sum()), wanted.total, reduction), grad
