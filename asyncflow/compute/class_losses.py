"""Cross-entropy from logits, with its gradient, in one pass; and nll, the same from log-probabilities.

Per row, with m the largest logit and S' the sum of exp(x - m) over all the others, the loss of class y is
log1p(S') + (m - x_y). Leaving the largest out keeps rows that are nearly certain right: [20, 0, 0] in float32
is 4.12e-9, where log of the whole sum gives 0. In the same way the gradient of class y is -(S - e_y) / S.

Nothing of the size of the logits is allocated but the gradient. Infinite logits follow IEEE: a row that holds
NaN or +inf, or only -inf, has a NaN loss.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncflow.compute.checks import Array, floating, one_of, share, vector, work_dtype
from asyncflow.compute.losses import Loss, reduced, rows_and_classes
from asyncflow.compute.memory import fresh
from asyncflow.compute.scratch import scratch
from asyncflow.compute.settings import pick
from asyncflow.compute.softmaxes import row_powers
from asyncflow.compute.sums import ones, row_sums
from asyncflow.compute.targets import IndexTargets, index_targets, probability_targets
from asyncflow.compute.tiles import map_tiles, plan


def cross_entropy(
    logits: Array,
    targets: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Loss:
    """The cross-entropy of targets under softmax(logits), from the logits.

    Args:
        logits: Unnormalised log-probabilities in nats, shape (n, classes), floating.
        targets: Class indices in [0, classes), shape (n,), integer; or probabilities, shape (n, classes),
            floating.
        weight: Weight of each class, shape (classes,), or None for ones.
        ignore_index: Rows with this index have loss 0 and do not count. Only for class indices.
        label_smoothing: Share of the target spread over all classes, in [0, 1).
        reduction: `"mean"` divides by the sum of the weights of the rows' classes (by n for
            probabilities), `"sum"`, or `"none"`, which returns an array of shape (n,).

    Returns:
        The loss in nats, a Python float. NaN for the mean over no rows, or if all are ignored.

    Raises:
        ShapeError: If targets are not one index, or one row of probabilities, per row of logits.
        DtypeError: If logits are not floating or targets are neither integer nor floating.
        RangeError: If an index is out of range.

    Example:
        >>> round(cross_entropy(np.array([[2.0, 0.0]]), np.array([0])), 4)
        0.1269

    Source:
        Goodfellow, Bengio and Courville, Deep Learning (2016), section 6.2.2.3; smoothing: Szegedy et al.,
        arXiv 1512.00567; divisors as in PyTorch.
    """
    return _run(logits, targets, weight, ignore_index, label_smoothing, reduction, False)[0]


def cross_entropy_with_grad(
    logits: Array,
    targets: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> tuple[Loss, Array]:
    """The cross-entropy and its gradient with respect to the logits, in their shape and dtype.

    The model must end in logits: the softmax and its derivative are inside. Arguments and errors are those of
    `cross_entropy`; for `"none"` the gradient is that of the sum.

    Example:
        >>> loss, gradient = cross_entropy_with_grad(np.array([[0.0, 0.0]]), np.array([1]))
        >>> gradient
        array([[ 0.5, -0.5]])
    """
    return _run(logits, targets, weight, ignore_index, label_smoothing, reduction, True)


def loss_weight(targets: Array, *, weight: Array | None = None, ignore_index: int = -100) -> float:
    """What the mean of a batch divides by: its rows, or the weights of their classes where there are some.

    Losses of several batches are averaged, and their gradients accumulated, with these weights.

    Example:
        >>> loss_weight(np.array([0, 1, -100]), weight=np.array([1.0, 3.0]))
        4.0
    """
    targets = np.asarray(targets)
    if targets.dtype.kind not in "iu":
        return float(len(targets))
    kept = targets[targets != ignore_index]
    return float(len(kept)) if weight is None else float(np.asarray(weight, np.float64)[kept].sum())


def _run(
    logits: Any,
    targets: Any,
    weight: Any,
    ignore_index: int,
    smoothing: float,
    reduction: str,
    with_grad: bool,
) -> tuple[Loss, Array]:
    one_of("reduction", reduction, ("mean", "sum", "none"))
    smoothing = share("label_smoothing", smoothing)
    x, targets = floating("logits", logits), np.asarray(targets)
    rows, classes = rows_and_classes("logits", x)
    x, work = np.ascontiguousarray(x), work_dtype(x.dtype)
    grad = fresh(x.shape, x.dtype) if with_grad else None
    losses = np.empty(rows, np.float64 if work.itemsize <= 8 else work)
    by_index: IndexTargets | None = None
    if targets.dtype.kind == "f":
        spread = probability_targets(targets, rows, classes, ignore_index)
        weights = None if weight is None else vector("weight", weight, classes, work)
        divisor = float(rows)
    else:
        by_index = index_targets(targets, rows, classes, weight, ignore_index, work)
        weights, divisor = by_index.weight, by_index.total
    scale = 1.0 if reduction != "mean" else 1.0 / divisor if divisor else float("nan")
    plain = by_index is not None and smoothing == 0.0
    tile = pick("cross_entropy", _plain_tile)

    def one(part: slice) -> float:
        piece = x[part].astype(work, copy=False)
        target = grad[part] if grad is not None and grad.dtype == work else scratch(piece.shape, work)
        if by_index is None:
            q = spread[part].astype(work)
            if smoothing:
                q = q * work.type(1 - smoothing) + work.type(smoothing / classes)
            _spread_tile(piece, q if weights is None else q * weights, scale, target, losses[part])
        elif plain:
            tile(piece, by_index.index[part], by_index.row_weight[part], scale, target, losses[part])
        else:
            rows_of = by_index.index[part], by_index.counted[part], by_index.row_weight[part]
            _smooth_tile(piece, *rows_of, weights, smoothing, scale, target, losses[part])
        if grad is not None and grad.dtype != work:
            grad[part] = target
        return float(losses[part].sum())

    sums = map_tiles(one, plan(rows, classes * work.itemsize))
    gradient = np.empty(0, x.dtype) if grad is None else grad
    if reduction == "none":
        return losses.astype(x.dtype), gradient
    return reduced(sum(sums), divisor, reduction), gradient


def _less_maximum(x: Array, out: Array) -> tuple[Array, Array, Array]:
    """Write x - m to `out`; returns the rows' numbers, the place of each row's maximum, and `out`."""
    rows, best = np.arange(len(x)), x.argmax(axis=1)
    np.subtract(x, x[rows, best][:, None], out=out)
    return rows, best, out


def _sum_others(z: Array, rows: Array, best: Array) -> tuple[Array, Array]:
    """exp in place; returns what stands at the maxima (1, or NaN), and the sums of all the others."""
    return _without_top(np.exp(z, out=z), rows, best)


def _without_top(z: Array, rows: Array, best: Array) -> tuple[Array, Array]:
    """What stands at the maxima, and the sums of all the others."""
    top = z[rows, best]
    z[rows, best] = 0
    others = row_sums(z)
    z[rows, best] = top
    return top, others


def _plain_tile(x: Array, index: Array, row_weight: Array, scale: float, out: Array, losses: Array) -> None:
    """Class indices without smoothing. `out` receives the gradient times `scale`."""
    z = out
    rows, best = row_powers(x, z)
    top, others = _without_top(z, rows, best)
    whole = top + others
    np.multiply(row_weight, np.log1p(others / top) - (x[rows, index] - x[rows, best]), out=losses)
    rest = np.where(best == index, others, whole - z[rows, index])
    factor = (row_weight * scale / whole).astype(x.dtype)
    ignored = row_weight == 0
    if ignored.any():
        # Such a row has loss and gradient 0 whatever stands in it.
        losses[ignored] = factor[ignored] = z[ignored] = rest[ignored] = 0
    np.multiply(z, factor[:, None], out=z)
    z[rows, index] = -rest * factor


def _smooth_tile(
    x: Array,
    index: Array,
    counted: Array,
    row_weight: Array,
    weight: Array | None,
    smoothing: float,
    scale: float,
    out: Array,
    losses: Array,
) -> None:
    """Class indices with smoothing: (1 - s)·w_y·nll_y + s / classes · Σ w_c·nll_c."""
    each = smoothing / x.shape[1]
    by_class = ones(x.shape[1], x.dtype) if weight is None else weight
    mass = float(by_class.sum(dtype=np.float64))
    rows, best, z = _less_maximum(x, out)
    margin, spread = z[rows, index], np.vecdot(z, by_class)
    top, others = _sum_others(z, rows, best)
    whole, log_rest = top + others, np.log1p(others) * top
    sure = (1 - smoothing) * row_weight
    losses[...] = np.where(counted, sure * (log_rest - margin) + each * (mass * log_rest - spread), 0)
    own = z[rows, index]
    rest = np.where(best == index, others, whole - own)
    np.multiply(z, ((sure + each * mass) * scale / whole).astype(x.dtype)[:, None], out=z)
    z -= by_class * x.dtype.type(each * scale)
    # The true class: sure·(p - 1) without the cancellation, and its smoothed share.
    z[rows, index] = scale * (each * (mass * own / whole - by_class[index]) - sure * rest / whole)
    z[~counted] = 0


def _spread_tile(x: Array, q: Array, scale: float, out: Array, losses: Array) -> None:
    """Probabilities, weights already in them: -Σ q_c·log p_c."""
    rows, best, z = _less_maximum(x, out)
    # 0·(-inf) would be NaN; a class of probability 0 does not count.
    terms = np.where(q == 0, z.dtype.type(0), q * z)
    mass = row_sums(q)
    spread = row_sums(terms)
    top, others = _sum_others(z, rows, best)
    losses[...] = mass * np.log1p(others) * top - spread
    np.multiply(z, (mass / (top + others))[:, None], out=z)
    z -= q
    z *= x.dtype.type(scale)
