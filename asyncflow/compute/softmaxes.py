"""softmax and log_softmax along any axis, each with its backward beside it.

A row whose entries are all -inf, and a row that holds +inf or NaN, is NaN throughout, as in PyTorch. An axis
of length 0 gives an empty array. `attention` has its own rule for fully masked rows: zeros.
"""

from __future__ import annotations

import numpy as np

from asyncflow.compute.checks import Array, cast, floating, same_shape
from asyncflow.compute.layout import Tile, map_rows
from asyncflow.compute.scratch import scratch_like
from asyncflow.compute.settings import pick
from asyncflow.compute.sums import row_sums


def softmax(x: Array, axis: int = -1, *, out: Array | None = None) -> Array:
    """exp(x) / Σ exp(x) along `axis`.

    Args:
        x: Logits in nats, floating, at least one dimension.
        axis: The axis whose entries sum to 1.
        out: Array of x's shape and dtype to write into; may be x itself.

    Raises:
        DtypeError: If x is not floating.
        ShapeError: If the axis does not exist or out does not fit.

    Example:
        >>> softmax(np.array([[0.0, 0.0], [1000.0, 0.0]]))
        array([[0.5, 0.5],
               [1. , 0. ]])

    Source:
        Goodfellow, Bengio and Courville, Deep Learning (2016), section 4.1.
    """
    return map_rows(pick("softmax", _softmax), (floating("x", x),), axis, out)


def _softmax(x: Array, out: Array) -> None:
    np.subtract(x, row_maxima(x)[:, None], out=out)
    np.exp(out, out=out)
    scale = row_sums(out)
    np.reciprocal(scale, out=scale)
    np.multiply(out, scale[:, None], out=out)


def row_maxima(x: Array) -> Array:
    """The largest entry of each row, NaN if there is one. argmax is vectorised along rows, max is slower."""
    return np.asarray(x[np.arange(len(x)), x.argmax(axis=1)])


def softmax_backward(y: Array, dy: Array, axis: int = -1, *, out: Array | None = None) -> Array:
    """The gradient of softmax from its result: y·(dy - Σ dy·y).

    Do not follow it with a loss that is already differentiated for logits: `cross_entropy` takes logits.
    """
    return _backward(_softmax_backward, "y", y, dy, axis, out)


def _softmax_backward(y: Array, dy: Array, out: Array) -> None:
    inner = np.vecdot(dy, y)[:, None]
    np.multiply(np.subtract(dy, inner, out=scratch_like(dy)), y, out=out)


def log_softmax(x: Array, axis: int = -1, *, out: Array | None = None) -> Array:
    """x - log Σ exp(x) along `axis`, without leaving the logarithmic scale.

    The order is (x - max) - log Σ exp(x - max): added the other way round, logits near 1e8 lose the sum. The
    sum leaves the largest entry out (log1p), so a row that is nearly certain keeps its relative accuracy.

    Args:
        x: Logits in nats, floating, at least one dimension.
        axis: The axis that is normalised.
        out: Array of x's shape and dtype to write into; may be x itself.

    Example:
        >>> log_softmax(np.array([20.0, 0.0, 0.0], np.float32))[:1]
        array([-4.1223074e-09], dtype=float32)
    """
    return map_rows(pick("log_softmax", _log_softmax), (floating("x", x),), axis, out)


def _log_softmax(x: Array, out: Array) -> None:
    rows, best = np.arange(len(x)), x.argmax(axis=1)
    np.subtract(x, x[rows, best][:, None], out=out)
    powers = np.exp(out, out=scratch_like(out))
    top = powers[rows, best]
    powers[rows, best] = 0
    # top is 1, or NaN where the row has no finite maximum.
    rest = np.log1p(row_sums(powers)) * top
    np.subtract(out, rest[:, None], out=out)


def log_softmax_backward(y: Array, dy: Array, axis: int = -1, *, out: Array | None = None) -> Array:
    """The gradient of log_softmax from its result: dy - exp(y)·Σ dy."""
    return _backward(_log_softmax_backward, "y", y, dy, axis, out)


def _log_softmax_backward(y: Array, dy: Array, out: Array) -> None:
    scaled = np.exp(y, out=scratch_like(y))
    scaled *= row_sums(dy)[:, None]
    np.subtract(dy, scaled, out=out)


def _backward(tile: Tile, name: str, y: Array, dy: Array, axis: int, out: Array | None) -> Array:
    y, dy = floating(name, y), floating("dy", dy)
    same_shape("dy", dy, name, y)
    return map_rows(tile, (y, cast(dy, y.dtype)), axis, out)
