"""Losses that compare number with number: squared error, Huber, binary cross-entropy from logits.

Every loss has a form `…_with_grad` that returns `(loss, gradient)`, the gradient with respect to the first
argument, in that argument's shape and dtype, from the same pass over the data. `reduction` says how the
losses become one: `"mean"` over all elements, `"sum"`, or `"none"`, which returns an array of the input's
shape; the gradient is then that of their sum. Sums are taken in float64, so the Python float is right for a
million float32 elements. The mean of nothing is NaN.

Shapes must be equal: (n, 1) against (n,), which NumPy would broadcast to n by n, is a ShapeError. The second
argument may be of any real dtype and is brought to that of the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from asyncflow.compute.checks import Array, floating, one_of, positive, real, same_shape, work_dtype
from asyncflow.compute.divisor import note
from asyncflow.compute.memory import fresh
from asyncflow.compute.scratch import scratch
from asyncflow.compute.sums import total
from asyncflow.compute.tiles import map_tiles, plan
from asyncflow.errors import ShapeError

Loss = float | Array
#: (x tile, target tile, loss tile, gradient tile or None) -> writes the losses, and the slopes.
_Tile = Callable[[Array, Array, Array, Array | None], None]


def mse_loss(pred: Array, target: Array, *, reduction: str = "mean") -> Loss:
    """The squared error (pred - target)².

    Args:
        pred: Floating, any shape.
        target: Real, the shape of pred.
        reduction: `"mean"`, `"sum"` or `"none"`.

    Returns:
        A Python float; for `"none"` an array like pred.

    Raises:
        ShapeError: If the shapes differ.

    Example:
        >>> mse_loss(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
        2.0
    """
    return _run(_mse, pred, target, reduction, False)[0]


def mse_loss_with_grad(pred: Array, target: Array, *, reduction: str = "mean") -> tuple[Loss, Array]:
    """The squared error and its gradient 2·(pred - target), divided by the element count for the mean."""
    return _run(_mse, pred, target, reduction, True)


def _mse(x: Array, t: Array, loss: Array, grad: Array | None) -> None:
    difference = np.subtract(x, t, out=grad if grad is not None else loss)
    np.square(difference, out=loss)
    if grad is not None:
        np.add(grad, grad, out=grad)


def huber_loss(pred: Array, target: Array, *, delta: float = 1.0, reduction: str = "mean") -> Loss:
    """Half the squared error up to `delta`, beyond it delta·(|error| - delta / 2).

    Args:
        pred: Floating, any shape.
        target: Real, the shape of pred.
        delta: Where the parabola becomes a line, above 0, in the unit of pred.
        reduction: `"mean"`, `"sum"` or `"none"`.

    Example:
        >>> huber_loss(np.array([0.0, 0.0]), np.array([1.0, 3.0]))
        1.5

    Source:
        Huber, Robust estimation of a location parameter, Annals of Mathematical Statistics 35 (1964).
    """
    return _run(_huber(delta), pred, target, reduction, False)[0]


def huber_loss_with_grad(
    pred: Array, target: Array, *, delta: float = 1.0, reduction: str = "mean"
) -> tuple[Loss, Array]:
    """The Huber loss and its gradient: the error, held between -delta and delta."""
    return _run(_huber(delta), pred, target, reduction, True)


def _huber(delta: float) -> _Tile:
    positive("delta", delta)

    def tile(x: Array, t: Array, loss: Array, grad: Array | None) -> None:
        # With c the error held within ±delta, both branches are c·(error - c / 2).
        error = np.subtract(x, t, out=scratch(x.shape, x.dtype, 1))
        room = scratch(x.shape, x.dtype, 2) if grad is None else grad
        held = np.clip(error, -delta, delta, out=room)
        np.multiply(held, x.dtype.type(0.5), out=loss)
        np.subtract(error, loss, out=loss)
        np.multiply(held, loss, out=loss)

    return tile


def binary_cross_entropy(
    logits: Array, targets: Array, *, pos_weight: float = 1.0, reduction: str = "mean"
) -> Loss:
    """The binary cross-entropy of probabilities `targets` under sigmoid(logits), from the logits.

    Args:
        logits: Log-odds in nats, floating, any shape.
        targets: Probabilities in [0, 1] (0 and 1 for labels), the shape of logits.
        pos_weight: Weight of the positive class, above 0.
        reduction: `"mean"`, `"sum"` or `"none"`.

    Returns:
        The loss in nats. It keeps its relative accuracy where the prediction is nearly certain.

    Raises:
        ShapeError: If the shapes differ.

    Example:
        >>> binary_cross_entropy(np.array([0.0]), np.array([1]))
        0.6931471805599453
    """
    return _run(_bce(pos_weight), logits, targets, reduction, False)[0]


def binary_cross_entropy_with_grad(
    logits: Array, targets: Array, *, pos_weight: float = 1.0, reduction: str = "mean"
) -> tuple[Loss, Array]:
    """The binary cross-entropy and its gradient (1 - t)·sigmoid(x) - pos_weight·t·sigmoid(-x)."""
    return _run(_bce(pos_weight), logits, targets, reduction, True)


def _bce(pos_weight: float) -> _Tile:
    positive("pos_weight", pos_weight)

    def tile(x: Array, t: Array, loss: Array, grad: Array | None) -> None:
        weight = x.dtype.type(pos_weight)
        decay = np.exp(-np.abs(x))
        rest = np.log1p(decay)
        # -log sigmoid(-x) = max(x, 0) + rest; -log sigmoid(x) = max(-x, 0) + rest.
        loss[...] = _weighted(1 - t, np.maximum(x, 0) + rest)
        loss += _weighted(weight * t, np.maximum(-x, 0) + rest)
        if grad is not None:
            small, big = decay / (1 + decay), 1 / (1 + decay)
            grad[...] = (1 - t) * np.where(x >= 0, big, small) - weight * t * np.where(x >= 0, small, big)

    return tile


def _weighted(weight: Array, loss: Array) -> Array:
    """weight·loss, with 0 where the weight is 0 though the loss is infinite."""
    return np.where(weight == 0, loss.dtype.type(0), weight * loss)


def _run(tile: _Tile, x: Any, target: Any, reduction: str, with_grad: bool) -> tuple[Loss, Array]:
    one_of("reduction", reduction, ("mean", "sum", "none"))
    x = floating("pred", x)
    target = np.asarray(target)
    same_shape("target", target, "pred", x)
    work = work_dtype(x.dtype)
    flat = np.ascontiguousarray(x).reshape(-1)
    wanted = np.ascontiguousarray(real("target", target, work)).reshape(-1)
    losses = np.empty(x.size, x.dtype) if reduction == "none" else None
    grad = fresh((x.size,), x.dtype) if with_grad else None
    scale = work.type(1 / x.size if reduction == "mean" and x.size else 1)

    def one(part: slice) -> float:
        piece = flat[part].astype(work, copy=False)
        loss = scratch(piece.shape, work)
        slope = None if grad is None else grad[part] if grad.dtype == work else np.empty(piece.shape, work)
        tile(piece, wanted[part], loss, slope)
        if slope is not None and grad is not None:
            if scale != 1:
                slope *= scale
            if slope.dtype != grad.dtype:
                grad[part] = slope
        if losses is not None:
            losses[part] = loss
            return 0.0
        return total(loss)

    sums = map_tiles(one, plan(x.size, work.itemsize))
    gradient = np.empty(0, x.dtype) if grad is None else grad.reshape(x.shape)
    if losses is not None:
        return losses.reshape(x.shape), gradient
    return reduced(sum(sums), x.size, reduction), gradient


def reduced(value: float, divisor: float, reduction: str) -> float:
    """The sum or the mean; the mean over nothing is NaN. What a mean is divided by is noted for a trainer."""
    if reduction == "sum":
        return float(value)
    note(divisor)
    return float(value / divisor) if divisor else float("nan")


def rows_and_classes(name: str, x: Array) -> tuple[int, int]:
    """The shape of a matrix of scores."""
    if x.ndim != 2:
        raise ShapeError(
            f"{name} must have shape (n, classes), got {x.shape}; "
            f"bring the classes to the end and use {name}.reshape(-1, classes)"
        )
    if x.shape[1] == 0:
        raise ShapeError(f"{name} must have at least one class, got shape {x.shape}")
    return x.shape[0], x.shape[1]
