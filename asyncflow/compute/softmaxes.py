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

#: A row whose powers exp(x) have a sum in this range is divided by it as it is: no power has overflowed, and
#: one that has underflowed is less than 1e-31 of the sum. Any other row is first shifted by its maximum.
LEAST_SUM, MOST_SUM = 1e-6, 1e37

#: The same, told from the row's largest power, where that is known anyway.
LEAST_TOP, MOST_TOP = 1e-6, 1e28


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
    powers = np.exp(x, out=scratch_like(x))
    sums = row_sums(powers)
    # A row's own sum says whether its powers are all right; most are, and need no maximum.
    far = np.flatnonzero(~((sums >= LEAST_SUM) & (sums <= MOST_SUM)))
    if far.size:
        part = x[far]
        np.subtract(part, row_maxima(part)[:, None], out=part)
        powers[far] = np.exp(part, out=part)
        sums[far] = row_sums(part)
    np.multiply(powers, np.divide(1, sums)[:, None], out=out)


def row_maxima(x: Array) -> Array:
    """The largest entry of each row, NaN if there is one. argmax is vectorised along rows, max is slower."""
    return np.asarray(x[np.arange(len(x)), x.argmax(axis=1)])


def row_powers(x: Array, out: Array) -> tuple[Array, Array]:
    """Write exp(x) to `out`, and exp(x - maximum) in the rows where exp(x) would not do.

    Returns the rows' numbers and the place of each row's largest entry.
    """
    rows = np.arange(len(x))
    np.exp(x, out=out)
    best = out.argmax(axis=1)
    top = out[rows, best]
    far = np.flatnonzero(~((top >= LEAST_TOP) & (top <= MOST_TOP)))
    if far.size:
        part = x[far]
        best[far] = part.argmax(axis=1)
        np.subtract(part, row_maxima(part)[:, None], out=part)
        out[far] = np.exp(part, out=part)
    return rows, best


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
        array([-4.122307e-09], dtype=float32)
    """
    return map_rows(pick("log_softmax", _log_softmax), (floating("x", x),), axis, out)


def _log_softmax(x: Array, out: Array) -> None:
    powers = scratch_like(x)
    rows, best = row_powers(x, powers)
    maxima, top = x[rows, best], powers[rows, best]
    powers[rows, best] = 0
    rest = np.log1p(row_sums(powers) / top)
    # max + log Σ is one number only in rows where adding them loses nothing of the smaller one.
    first = np.where(8 * rest >= np.abs(maxima), 0, maxima)
    if first.any():
        x = np.subtract(x, first[:, None], out=out)
    np.subtract(x, (maxima - first + rest)[:, None], out=out)


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
