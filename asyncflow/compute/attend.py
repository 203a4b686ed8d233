"""Scaled dot-product attention in memory linear in the tokens, forward and backward.

Queries and keys are taken in tiles. Per query the running maximum m, the running sum l of exp(score - m) and
the running result are corrected whenever a tile has a larger score (online softmax), so scores of the size
(queries, keys) never exist. The forward keeps log Σ exp(score) per query, with which the backward makes the
probabilities of each tile again.

Each head (and block of queries) is one piece of work for a thread; the tile size changes results only within
rounding, the number of threads not at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np

from asyncflow.compute.checks import Array, cast, count, floating, one_of, same_shape, work_dtype
from asyncflow.compute.masking import Masking, masking
from asyncflow.compute.memory import fresh
from asyncflow.compute.scratch import scratch
from asyncflow.compute.settings import pick
from asyncflow.compute.softmaxes import row_maxima
from asyncflow.compute.sums import row_sums
from asyncflow.compute.tiles import run_tiles
from asyncflow.errors import DtypeError, RangeError, ShapeError

#: Queries and keys of a tile: 512 by 512 scores in float32 are 1 MiB.
CHUNK = 512

Causal = Literal["top_left", "bottom_right"] | None


@dataclass(frozen=True, slots=True, eq=False)
class AttentionContext:
    """What the backward needs: the inputs (not copied), the result, and log Σ exp(score) per query."""

    q: Array
    k: Array
    v: Array
    out: Array
    lse: Array
    masking: Masking
    scale: float
    chunk: int


@overload
def attention(
    q: Array, k: Array, v: Array, *, mask: Array | None = ..., causal: Causal = ...,
    scale: float | None = ..., chunk_size: int | None = ..., return_context: Literal[False] = ...,
) -> Array: ...  # fmt: skip


@overload
def attention(
    q: Array, k: Array, v: Array, *, mask: Array | None = ..., causal: Causal = ...,
    scale: float | None = ..., chunk_size: int | None = ..., return_context: Literal[True],
) -> tuple[Array, AttentionContext]: ...  # fmt: skip


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None = None,
    causal: Causal = None,
    scale: float | None = None,
    chunk_size: int | None = None,
    return_context: bool = False,
) -> Array | tuple[Array, AttentionContext]:
    """softmax(q·kᵀ·scale + mask)·v, with the softmax over the keys.

    Args:
        q: Queries, shape (…, queries, depth), floating.
        k: Keys, shape (…, keys, depth), with q's leading axes and dtype.
        v: Values, shape (…, keys, value depth), with q's leading axes and dtype.
        mask: Shape (…, queries, keys), its leading axes broadcast to q's. Boolean: True where attention is
            allowed. Floating: added to the scores; use -inf, not a large number, for what is not allowed.
        causal: `"top_left"`: query i sees keys 0 … i. `"bottom_right"`: the last query sees all keys,
            which is what a decoder with a cache needs. They differ when queries and keys differ in number.
        scale: What scores are multiplied by; None for 1 / sqrt(depth), the depth of one head.
        chunk_size: Queries and keys per tile, at least 1; None for 512.
        return_context: Also return what `attention_backward` takes.

    Returns:
        Shape (…, queries, value depth), q's dtype. A query that may see no key gives zeros.

    Raises:
        ShapeError: If shapes do not fit together; leading axes are not broadcast.
        DtypeError: If dtypes differ or are not floating, or the mask is of integers.
        RangeError: If causal or chunk_size is out of range.

    Example:
        >>> q = k = v = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> attention(q, k, v, causal="top_left").round(3)
        array([[1.  , 0.  ],
               [0.33, 0.67]])

    Source:
        Dao et al., FlashAttention, arXiv 2205.14135; Milakov and Gimelshein, arXiv 1805.02867.
    """
    q, k, v = floating("q", q), floating("k", k), floating("v", v)
    _check(q, k, v)
    one_of("causal", causal, (None, "top_left", "bottom_right"))
    chunk = CHUNK if chunk_size is None else count("chunk_size", chunk_size)
    depth, work = q.shape[-1], work_dtype(q.dtype)
    if scale is None:
        scale = 1 / math.sqrt(depth) if depth else 1.0
    elif not math.isfinite(scale):
        raise RangeError(f"scale must be a finite number, got {scale!r}")
    hidden = masking(mask, causal, q.shape[:-2], q.shape[-2], k.shape[-2], work)
    q3, k3, v3 = (_heads(x) for x in (q, k, v))
    heads, queries = q3.shape[:2]
    out = np.zeros((heads, queries, v3.shape[2]), q.dtype)
    lse = np.full((heads, queries), -np.inf, work)
    starts = [(head, start) for head in range(heads) for start in range(0, queries, chunk)]

    def one(index: int) -> None:
        head, start = starts[index]
        rows = slice(start, min(start + chunk, queries))
        block = q3[head, rows].astype(work) * work.type(scale)
        # The copy below is free where the array has the computing dtype already.
        keys, values = cast(k3[head], work), cast(v3[head], work)
        result, logs = _block(block, keys, values, hidden, head, rows, chunk)
        out[head, rows] = cast(result, out.dtype)
        lse[head, rows] = logs

    run_tiles(one, len(starts))
    result = out.reshape(*q.shape[:-1], v.shape[-1])
    if not return_context:
        return result
    return result, AttentionContext(q, k, v, result, lse, hidden, scale, chunk)


def _block(
    q: Array, k: Array, v: Array, hidden: Masking, head: int, rows: slice, chunk: int
) -> tuple[Array, Array]:
    """The result and log Σ exp(score) of one block of (scaled) queries."""
    size, last = len(q), hidden.last_key(rows.stop, len(k))
    best = np.full(size, -np.inf, q.dtype)
    total = np.zeros(size, q.dtype)
    result = np.zeros((size, v.shape[1]), q.dtype)
    exponentials = pick("attention_exponentials", _exponentials)
    for start in range(0, last, chunk):
        columns = slice(start, min(start + chunk, last))
        keys = k[columns]
        scores = np.matmul(q, keys.T, out=scratch((size, len(keys)), q.dtype))
        hidden.apply(scores, head, rows, columns)
        now = np.maximum(best, row_maxima(scores))
        safe = np.where(np.isneginf(now), 0, now)  # -inf - -inf would be NaN in a row that sees nothing
        sums = exponentials(scores, safe)
        if start == 0:
            total, result = sums, scores @ v[columns]
        else:
            shrink = np.exp(best - safe)
            total = total * shrink + sums
            result *= shrink[:, None]
            result += scores @ v[columns]
        best = now
    seen = np.where(total == 0, 1, total)
    result *= (1 / seen)[:, None]
    safe = np.where(np.isneginf(best), 0, best)
    return result, np.where(total == 0, -np.inf, safe + np.log(seen)).astype(q.dtype)


def _exponentials(scores: Array, shift: Array) -> Array:
    """exp(scores - shift) in place; returns the sums of the rows."""
    np.subtract(scores, shift[:, None], out=scores)
    np.exp(scores, out=scores)
    return row_sums(scores)


def attention_backward(ctx: AttentionContext, dout: Array) -> tuple[Array, Array, Array]:
    """The gradients of `attention` with respect to q, k and v.

    Args:
        ctx: What the forward returned with `return_context=True`.
        dout: Gradient of the loss with respect to the result, in its shape.

    Returns:
        `(dq, dk, dv)`, in the shapes and the dtype of q, k and v. Queries that saw no key give zeros.

    Raises:
        ShapeError: If dout does not have the result's shape.

    Example:
        >>> x = np.eye(2)
        >>> y, ctx = attention(x, x, x, return_context=True)
        >>> [g.shape for g in attention_backward(ctx, y)]
        [(2, 2), (2, 2), (2, 2)]
    """
    dout = floating("dout", dout)
    same_shape("dout", dout, "the result", ctx.out)
    q, k, v, out, up = (_heads(x) for x in (ctx.q, ctx.k, ctx.v, ctx.out, dout))
    dq, dk, dv = fresh(q.shape, q.dtype), fresh(k.shape, k.dtype), fresh(v.shape, v.dtype)
    work = work_dtype(q.dtype)

    def one(head: int) -> None:
        grads = _head_backward(ctx, head, *(cast(x[head], work) for x in (q, k, v, out, up)))
        for whole, part in zip((dq, dk, dv), grads, strict=True):
            whole[head] = cast(part, whole.dtype)

    run_tiles(one, len(q))
    return dq.reshape(ctx.q.shape), dk.reshape(ctx.k.shape), dv.reshape(ctx.v.shape)


def _head_backward(
    ctx: AttentionContext, head: int, q: Array, k: Array, v: Array, out: Array, up: Array
) -> tuple[Array, Array, Array]:
    """P the probabilities, D = Σ dout·out: dV = Pᵀ·dout, dS = P·(dout·Vᵀ - D), dQ = dS·K, dK = dSᵀ·Q."""
    scaled, lse = q * q.dtype.type(ctx.scale), ctx.lse[head]
    mean = np.vecdot(up, out)
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    shift = np.where(
        np.isneginf(lse), np.inf, lse
    )  # exp(score - inf) is the right 0 for a query without keys
    probabilities = pick("attention_probabilities", _probabilities)
    slopes = pick("attention_slopes", _slopes)
    for first in range(0, len(q), ctx.chunk):
        rows = slice(first, min(first + ctx.chunk, len(q)))
        last = ctx.masking.last_key(rows.stop, len(k))
        for start in range(0, last, ctx.chunk):
            columns = slice(start, min(start + ctx.chunk, last))
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            scores = np.matmul(scaled[rows], k[columns].T, out=scratch(shape, q.dtype))
            ctx.masking.apply(scores, head, rows, columns)
            probabilities(scores, shift[rows])
            dv[columns] += scores.T @ up[rows]
            slope = np.matmul(up[rows], v[columns].T, out=scratch(shape, q.dtype, 1))
            slopes(slope, scores, mean[rows])
            dq[rows] += slope @ k[columns]
            dk[columns] += slope.T @ scaled[rows]
    dq *= dq.dtype.type(ctx.scale)
    return dq, dk, dv


def _probabilities(scores: Array, shift: Array) -> None:
    """exp(scores - shift) in place."""
    np.subtract(scores, shift[:, None], out=scores)
    np.exp(scores, out=scores)


def _slopes(slope: Array, probabilities: Array, mean: Array) -> None:
    """(slope - mean)·probabilities in place."""
    np.subtract(slope, mean[:, None], out=slope)
    np.multiply(slope, probabilities, out=slope)


def _heads(x: Array) -> Array:
    """(…, tokens, depth) as contiguous (heads, tokens, depth)."""
    return np.ascontiguousarray(x).reshape(math.prod(x.shape[:-2]), *x.shape[-2:])


def _check(q: Array, k: Array, v: Array) -> None:
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim < 2:
            raise ShapeError(f"{name} must have shape (…, tokens, depth), got {x.shape}")
        if x.dtype != q.dtype:
            raise DtypeError(f"{name} must have the dtype of q, {q.dtype}, got {x.dtype}")
    if k.shape[:-2] != q.shape[:-2] or k.shape[-1] != q.shape[-1]:
        wanted = (*q.shape[:-2], "keys", q.shape[-1])
        raise ShapeError(f"k must have shape {wanted}, got {k.shape}")
    if v.shape[:-1] != k.shape[:-1]:
        wanted = (*k.shape[:-1], "value depth")
        raise ShapeError(f"v must have shape {wanted}, got {v.shape}")
