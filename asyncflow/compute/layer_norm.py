"""Layer normalisation over the last axis, forward and backward side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asyncflow.compute.checks import Array, floating, not_negative, same_shape, vector, work_dtype
from asyncflow.compute.memory import fresh
from asyncflow.compute.scratch import scratch_like
from asyncflow.compute.sums import column_sums, row_sums
from asyncflow.compute.tiles import map_tiles, plan
from asyncflow.errors import ShapeError


@dataclass(frozen=True, slots=True, eq=False)
class LayerNormContext:
    """What the backward needs: the input (not copied), and one mean and 1 / deviation per row."""

    x: Array
    mean: Array
    invstd: Array
    gamma: Array | None


@np.errstate(all="ignore")
def layer_norm_forward(
    x: Array, gamma: Array | None, beta: Array | None, *, eps: float = 1e-5
) -> tuple[Array, LayerNormContext]:
    """gamma · (x - mean) / sqrt(variance + eps) + beta, with mean and variance over the last axis.

    Args:
        x: Floating, shape (…, features).
        gamma: Scale, shape (features,), or None for ones.
        beta: Shift, shape (features,), or None for zeros.
        eps: Added to the variance (which is divided by the count), at least 0.

    Returns:
        The result in x's shape and dtype, and the context for `layer_norm_backward`.

    Raises:
        ShapeError: If x has no axis, or a parameter does not hold one number per feature.

    Example:
        >>> layer_norm_forward(np.array([[1.0, 3.0]]), None, None)[0].round(3)
        array([[-1.,  1.]])

    Source:
        Ba, Kiros and Hinton, Layer normalization, arXiv 1607.06450.
    """
    x = floating("x", x)
    if x.ndim == 0:
        raise ShapeError("x must have at least one dimension, (…, features), got shape ()")
    features, work, eps = x.shape[-1], work_dtype(x.dtype), not_negative("eps", eps)
    scale = None if gamma is None else vector("gamma", gamma, features, work)
    shift = None if beta is None else vector("beta", beta, features, work)
    rows = np.ascontiguousarray(x).reshape(-1, features) if x.size else x.reshape(0, max(features, 1))
    y = fresh(rows.shape, x.dtype)
    mean, invstd = np.empty(len(rows), work), np.empty(len(rows), work)

    def one(part: slice) -> None:
        piece = rows[part].astype(work, copy=False)
        mean[part] = row_sums(piece) / features
        out = y[part] if y.dtype == work else np.empty(piece.shape, work)
        np.subtract(piece, mean[part, None], out=out)
        left = row_sums(out) / features  # what rounding left in the mean
        out -= left[:, None]
        mean[part] += left
        invstd[part] = 1 / np.sqrt(np.vecdot(out, out) / features + work.type(eps))
        out *= invstd[part, None]
        if scale is not None:
            out *= scale
        if shift is not None:
            out += shift
        if out.dtype != y.dtype:
            y[part] = out

    map_tiles(one, plan(len(rows), max(features, 1) * work.itemsize))
    return y.reshape(x.shape), LayerNormContext(x, mean, invstd, scale)


@np.errstate(all="ignore")
def layer_norm_backward(ctx: LayerNormContext, dy: Array) -> tuple[Array, Array, Array]:
    """The gradients of `layer_norm_forward` with respect to x, gamma and beta.

    Returns:
        `(dx, dgamma, dbeta)`: dx in x's shape and dtype, the others of shape (features,).

    Raises:
        ShapeError: If dy does not have x's shape.

    Example:
        >>> y, ctx = layer_norm_forward(np.array([[1.0, 3.0]]), None, None)
        >>> layer_norm_backward(ctx, np.array([[1.0, 1.0]]))[2]
        array([1., 1.])
    """
    dy = floating("dy", dy)
    same_shape("dy", dy, "x", ctx.x)
    features, work = ctx.x.shape[-1], work_dtype(ctx.x.dtype)
    if ctx.x.size == 0:
        return np.zeros_like(ctx.x), np.zeros(features, work), np.zeros(features, work)
    rows, up = (np.ascontiguousarray(a).reshape(-1, features) for a in (ctx.x, dy))
    dx = fresh(rows.shape, ctx.x.dtype)

    def one(part: slice) -> tuple[Array, Array]:
        g = up[part].astype(work, copy=False)
        piece = rows[part].astype(work, copy=False)
        unit = np.subtract(piece, ctx.mean[part, None], out=scratch_like(piece))
        unit *= ctx.invstd[part, None]
        sums = column_sums(np.multiply(g, unit, out=scratch_like(unit, 1))), column_sums(g)
        if ctx.gamma is not None:
            g = g * ctx.gamma
        pull, level = np.vecdot(g, unit) / features, row_sums(g) / features
        unit *= pull[:, None]
        unit += level[:, None]
        np.subtract(g, unit, out=unit)
        unit *= ctx.invstd[part, None]
        dx[part] = unit
        return sums

    parts = map_tiles(one, plan(len(rows), features * work.itemsize))
    dgamma = np.array([p[0] for p in parts]).sum(axis=0)
    dbeta = np.array([p[1] for p in parts]).sum(axis=0)
    return dx.reshape(ctx.x.shape), dgamma.astype(work), dbeta.astype(work)
