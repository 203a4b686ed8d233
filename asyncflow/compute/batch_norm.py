"""Batch normalisation, forward and backward, over every axis but the channels.

Training uses the batch's own mean and variance and moves the running ones; evaluation uses the running ones.
The conventions are PyTorch's: the batch is normalised with the variance divided by n, the running variance
receives the one divided by n - 1, and `momentum` is the weight of the new value (0.1 is what others call a
decay of 0.9).

Nothing is kept on a layer: `forward` returns a context and `backward` takes it. The context refers to `x` and
does not copy it, so x must not be changed before the backward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncflow.compute.checks import (
    Array,
    axis_of,
    floating,
    not_negative,
    same_shape,
    share,
    vector,
    work_dtype,
)
from asyncflow.compute.columns import (
    NEAR,
    as_channels,
    by_wide_rows,
    channel_tiles,
    moments,
    per_channel,
)
from asyncflow.compute.memory import fresh
from asyncflow.compute.scratch import scratch_like
from asyncflow.compute.settings import pick
from asyncflow.compute.sums import column_dots, column_sums
from asyncflow.compute.tiles import map_tiles
from asyncflow.errors import DtypeError, RangeError, ShapeError


@dataclass(frozen=True, slots=True, eq=False)
class BatchNormContext:
    """What the backward needs: the input, the statistics that normalised it, and how.

    Attributes:
        x: The input, shape (…, channels, …).
        mean: Float64, shape (channels,).
        invstd: 1 / sqrt(variance + eps), float64, shape (channels,).
        gamma: The scale, shape (channels,), or None.
        training: Whether mean and variance were the batch's own.
        channel_axis: Counted from the front.
    """

    x: Array
    mean: Array
    invstd: Array
    gamma: Array | None
    training: bool
    channel_axis: int


@np.errstate(all="ignore")
def batch_norm_forward(
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    *,
    training: bool,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    channel_axis: int = 1,
    batches_seen: int = 0,
) -> tuple[Array, BatchNormContext]:
    """gamma · (x - mean) / sqrt(variance + eps) + beta, per channel.

    Args:
        x: Floating, at least two dimensions: (n, features), (n, channels, height, width), …
        gamma: Scale, shape (channels,), or None for ones.
        beta: Shift, shape (channels,), or None for zeros.
        running_mean: Shape (channels,), updated in place when training; None to keep none.
        running_var: Shape (channels,), updated in place when training; None to keep none.
        training: Whether to use the batch's statistics and update the running ones.
        momentum: Weight of the batch in the running values, in [0, 1]; None for the plain average over
            all batches, which needs `batches_seen`.
        eps: Added to the variance, at least 0.
        channel_axis: 1 for (n, channels, …), -1 for (…, channels).
        batches_seen: Batches already in the running values; read only where momentum is None.

    Returns:
        The result in x's shape and dtype, and the context for `batch_norm_backward`.

    Raises:
        ShapeError: If a parameter does not hold one number per channel.
        RangeError: If a training batch holds fewer than two numbers per channel, or a number is out of range.
        DtypeError: If x is not floating, or a running array cannot be updated in place.

    Example:
        >>> y, ctx = batch_norm_forward(np.array([[1.0], [3.0]]), None, None, None, None, training=True)
        >>> y.round(3)
        array([[-1.],
               [ 1.]])

    Source:
        Ioffe and Szegedy, Batch normalization, arXiv 1502.03167; conventions as in PyTorch.
    """
    x = floating("x", x)
    if x.ndim < 2:
        raise ShapeError(f"x must have at least two dimensions, (n, channels, …), got shape {x.shape}")
    axis, eps = axis_of(channel_axis, x.ndim), not_negative("eps", eps)
    channels, work = x.shape[axis], work_dtype(x.dtype)
    scale = None if gamma is None else vector("gamma", gamma, channels, work)
    shift = None if beta is None else vector("beta", beta, channels, work)
    _check_running("running_mean", running_mean, channels)
    _check_running("running_var", running_var, channels)
    size = x.size // channels if channels else 0
    if training:
        if size < 2 and x.size:
            raise RangeError(
                f"training needs at least two numbers per channel for a variance, got x of shape {x.shape}"
            )
        weight = 1 / (batches_seen + 1) if momentum is None else share("momentum", momentum, below_one=False)
        if x.size == 0:
            return x.copy(), BatchNormContext(x, np.zeros(channels), np.ones(channels), scale, True, axis)
        rows = as_channels(x, axis)
        mean, variance = moments(rows, work)
        _move(running_mean, mean, weight)
        _move(running_var, variance * (size / (size - 1)), weight)
    else:
        if running_mean is None or running_var is None:
            raise RangeError("evaluation needs running_mean and running_var, got None")
        rows = as_channels(x, axis)
        mean, variance = running_mean.astype(np.float64), running_var.astype(np.float64)
    invstd = 1 / np.sqrt(variance + eps)
    y = _normalise(rows, mean, invstd, scale, shift, work).reshape(x.shape)
    return y, BatchNormContext(x, mean, invstd, scale, training, axis)


def _check_running(name: str, values: Any, channels: int) -> None:
    if values is None:
        return
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f" or not values.flags.writeable:
        raise DtypeError(f"{name} must be a writeable floating NumPy array, got {type(values).__name__}")
    if values.shape != (channels,):
        raise ShapeError(f"{name} must have shape ({channels},), one number per channel, got {values.shape}")


def _move(running: Array | None, value: Array, weight: float) -> None:
    if running is not None:
        running[...] = (1 - weight) * running.astype(np.float64) + weight * value


def _normalise(
    rows: Array, mean: Array, invstd: Array, gamma: Array | None, beta: Array | None, work: np.dtype[Any]
) -> Array:
    slope = invstd if gamma is None else invstd * gamma
    shift = np.zeros_like(mean) if beta is None else beta.astype(np.float64)
    # x·a + b is one operation less than (x - mean)·a + beta, and as right while the mean is near.
    near = bool(np.all(np.abs(mean * invstd) <= NEAR))
    if near:
        shift = shift - mean * slope
    a, b, m = per_channel([slope, shift, mean], rows, work)
    y = fresh(rows.shape, rows.dtype)
    tile = pick("batch_norm_normalise", _affine) if rows.ndim == 2 else _affine

    def one(part: slice) -> None:
        x = rows[part].astype(work, copy=False)
        out = y[part] if y.dtype == work else np.empty(x.shape, work)
        tile(x, out, a, b, None if near else m)
        if out.dtype != y.dtype:
            y[part] = out

    map_tiles(one, channel_tiles(rows))
    return y


def _affine(x: Array, out: Array, a: Array, b: Array, m: Array | None) -> None:
    """(x - m)·a + b, or x·a + b without m."""

    def near(x: Array, out: Array, a: Array, b: Array) -> None:
        np.multiply(x, a, out=out)
        np.add(out, b, out=out)

    def far(x: Array, out: Array, a: Array, b: Array, m: Array) -> None:
        np.subtract(x, m, out=out)
        np.multiply(out, a, out=out)
        np.add(out, b, out=out)

    if m is None:
        by_wide_rows(near, [x, out], [a, b])
    else:
        by_wide_rows(far, [x, out], [a, b, m])


@np.errstate(all="ignore")
def batch_norm_backward(ctx: BatchNormContext, dy: Array) -> tuple[Array, Array, Array]:
    """The gradients of `batch_norm_forward` with respect to x, gamma and beta.

    Args:
        ctx: What the forward returned.
        dy: Gradient of the loss with respect to the result, in its shape.

    Returns:
        `(dx, dgamma, dbeta)`: dx in x's shape and dtype, the others of shape (channels,) in the computing
        dtype. After an evaluation forward the statistics are constants, and dx has no terms for them.

    Raises:
        ShapeError: If dy does not have x's shape.

    Example:
        >>> y, ctx = batch_norm_forward(np.array([[1.0], [3.0]]), None, None, None, None, training=True)
        >>> batch_norm_backward(ctx, np.ones((2, 1)))[2]
        array([2.])
    """
    dy = floating("dy", dy)
    same_shape("dy", dy, "x", ctx.x)
    work = work_dtype(ctx.x.dtype)
    channels = len(ctx.mean)
    if ctx.x.size == 0:
        return np.zeros_like(ctx.x), np.zeros(channels, work), np.zeros(channels, work)
    rows, up = as_channels(ctx.x, ctx.channel_axis), as_channels(dy, ctx.channel_axis)
    near = bool(np.all(np.abs(ctx.mean * ctx.invstd) <= NEAR))
    tile = pick("batch_norm_sums", _sums) if rows.ndim == 2 else _sums

    def sums(part: slice) -> tuple[Array, Array]:
        g, x = up[part].astype(work, copy=False), rows[part].astype(work, copy=False)
        result: tuple[Array, Array] = tile(g, x, ctx.mean, near)
        return result

    parts = map_tiles(sums, channel_tiles(rows))
    dbeta = np.array([p[0] for p in parts]).sum(axis=0)
    inner = np.array([p[1] for p in parts]).sum(axis=0)
    dgamma = inner * ctx.invstd
    dx = _input_gradient(ctx, rows, up, dbeta, dgamma, near, work)
    return dx.reshape(ctx.x.shape), dgamma.astype(work), dbeta.astype(work)


def _sums(g: Array, x: Array, mean: Array, near: bool) -> tuple[Array, Array]:
    """Σ g and Σ g·(x - mean) of a tile; while the mean is near, it is taken off the sum and not off x."""
    total = column_sums(g)
    if near:
        return total, column_dots(g, x) - mean * total
    (middle,) = per_channel([mean], x, x.dtype)
    centred = np.subtract(x, middle, out=scratch_like(x))
    return total, column_dots(centred, g)


def _input_gradient(
    ctx: BatchNormContext,
    rows: Array,
    up: Array,
    dbeta: Array,
    dgamma: Array,
    near: bool,
    work: np.dtype[Any],
) -> Array:
    """slope · (g - Σg/n - x̂·Σ(g·x̂)/n), as g·a - x·b + c while the mean is near."""
    size = rows.size / len(ctx.mean)
    slope = ctx.invstd if ctx.gamma is None else ctx.invstd * ctx.gamma
    pull = slope * ctx.invstd * dgamma / size if ctx.training else np.zeros_like(slope)
    level = -slope * dbeta / size if ctx.training else np.zeros_like(slope)
    if near:
        level = level + ctx.mean * pull
    a, b, c, m = per_channel([slope, pull, level, ctx.mean], rows, work)
    dx = fresh(rows.shape, rows.dtype)
    tile = pick("batch_norm_gradient", _gradient) if rows.ndim == 2 else _gradient

    def one(part: slice) -> None:
        g, x = up[part].astype(work, copy=False), rows[part].astype(work, copy=False)
        out = dx[part] if dx.dtype == work else np.empty(x.shape, work)
        if ctx.training:
            tile(g, x, out, a, b, c, None if near else m)
        else:
            by_wide_rows(lambda g, out, a: np.multiply(g, a, out=out), [g, out], [a])
        if out.dtype != dx.dtype:
            dx[part] = out

    map_tiles(one, channel_tiles(rows))
    return dx


def _gradient(g: Array, x: Array, out: Array, a: Array, b: Array, c: Array, m: Array | None) -> None:
    """g·a - (x - m)·b + c, or g·a - x·b + c without m."""

    def write(
        g: Array, x: Array, out: Array, scratch: Array, a: Array, b: Array, c: Array, *m: Array
    ) -> None:
        centred = np.subtract(x, m[0], out=scratch) if m else x
        np.multiply(centred, b, out=scratch)
        np.subtract(c, scratch, out=scratch)
        np.multiply(g, a, out=out)
        np.add(out, scratch, out=out)

    by_wide_rows(write, [g, x, out, scratch_like(x)], [a, b, c, *([] if m is None else [m])])
