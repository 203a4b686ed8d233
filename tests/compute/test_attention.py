"""Attention: against the plain formula, for any tile size, mask and alignment, with gradients."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from asyncflow.compute import attention, attention_backward, workers
from asyncflow.errors import DtypeError, RangeError, ShapeError

from .reference import error, maximum, slope, tolerance


def formula(q, k, v, allowed=None, added=None, scale=None):
    scores = q @ np.swapaxes(k, -1, -2) * (1 / np.sqrt(q.shape[-1]) if scale is None else scale)
    if added is not None:
        scores = scores + added
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    top = maximum(scores, -1)
    e = np.exp(scores - np.where(np.isneginf(top), 0, top))
    total = e.sum(axis=-1, keepdims=True)
    return e / np.where(total == 0, 1, total) @ v


def causal_mask(queries, keys, causal):
    offset = 0 if causal == "top_left" else keys - queries
    return np.arange(keys) <= np.arange(queries)[:, None] + offset


def inputs(rng, dtype, shape=(2, 3), queries=7, keys=9, depth=4, values=5):
    sizes = [(*shape, queries, depth), (*shape, keys, depth), (*shape, keys, values)]
    return [rng.standard_normal(s).astype(dtype) for s in sizes]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("chunk", [None, 1, 3, 4])
@pytest.mark.parametrize("causal", [None, "top_left", "bottom_right"])
def test_values(causal, chunk, dtype, rng, kernel):
    """The plain formula's result, whatever the tile size."""
    q, k, v = inputs(rng, dtype)
    wide = [x.astype(np.float64) for x in (q, k, v)]
    allowed = None if causal is None else causal_mask(7, 9, causal)
    got = attention(q, k, v, causal=causal, chunk_size=chunk)
    assert got.dtype == dtype
    assert error(got, formula(*wide, allowed)) < tolerance(dtype)


MASKS = ["none", "bool", "bool per head", "added", "hidden rows"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("causal", [None, "top_left", "bottom_right"])
@pytest.mark.parametrize("kind", MASKS)
def test_gradients(kind, causal, chunk, dtype, rng, kernel):
    """dq, dk and dv are the derivatives by the complex step, with masks, alignments and hidden rows."""
    q, k, v = inputs(rng, dtype, (2, 1), 4, 5, 3, 2)
    allowed, added, mask = np.ones((4, 5), bool), None, None
    if kind in ("bool", "bool per head", "hidden rows"):
        mask = rng.random((2, 1, 4, 5) if kind == "bool per head" else (4, 5)) < 0.7
        if kind == "hidden rows":
            mask[2] = False
        allowed = mask
    if kind == "added":
        mask = added = rng.standard_normal((4, 5))
    if causal:
        allowed = allowed & causal_mask(4, 5, causal)
    dout = rng.standard_normal((2, 1, 4, 2)).astype(dtype)
    y, ctx = attention(q, k, v, mask=mask, causal=causal, scale=0.7, chunk_size=chunk, return_context=True)
    got = attention_backward(ctx, dout)
    wide, up = [x.astype(np.float64) for x in (q, k, v)], dout.astype(np.float64)
    assert error(y, formula(*wide, allowed, added, 0.7)) < tolerance(dtype)
    for i in range(3):

        def by(x, i=i):
            return formula(*(x if j == i else wide[j] for j in range(3)), allowed, added, 0.7)

        assert got[i].dtype == dtype
        assert error(got[i], slope(by, wide[i], up)) < tolerance(dtype, 5e-6)


def test_a_query_that_sees_nothing_gives_zeros(rng, kernel):
    """All three ways to hide everything: zeros forward, zeros backward, no NaN, no warning."""
    q, k, v = inputs(rng, np.float32, (1,), 3, 2)
    hidden = np.array([[True, True], [False, False], [True, False]])
    with np.errstate(all="raise"):
        for mask in (hidden, np.where(hidden, 0.0, -np.inf)):
            y, ctx = attention(q, k, v, mask=mask, return_context=True)
            assert (y[0, 1] == 0).all() and np.isfinite(y).all()
            dq, dk, dv = attention_backward(ctx, np.ones_like(y))
            assert (dq[0, 1] == 0).all() and np.isfinite(dk).all() and np.isfinite(dv).all()
        y = attention(q, k, v, causal="bottom_right")  # three queries, two keys: the first sees none
        assert (y[0, 0] == 0).all() and y[0, 1].any()


def test_large_scores_do_not_overflow(rng, kernel):
    """Scores of ±10^4 are no matter for the online softmax."""
    q, k, v = inputs(rng, np.float32, (1,), 50, 60)
    wanted = formula(*(x.astype(np.float64) for x in (q * 1000, k * 10, v)))
    for chunk in (None, 7):
        assert error(attention(q * 1000, k * 10, v, chunk_size=chunk), wanted) < 1e-3


def test_equal_bits(rng, kernel):
    """Any number of workers: the same bits, forward and backward."""
    q, k, v = inputs(rng, np.float32, (3,), 150, 140, 16, 16)
    wanted = None
    for n in (1, 2, 3, 4):
        with workers(n):
            y, ctx = attention(q, k, v, causal="top_left", chunk_size=64, return_context=True)
            got = (y, *attention_backward(ctx, v[:, :1].repeat(150, axis=1)))
        wanted = wanted or got
        for a, b in zip(got, wanted):
            np.testing.assert_array_equal(a, b)


def test_memory_is_linear_in_the_tokens(rng):
    """4096 tokens would need 64 MiB of scores; a few MiB are used."""
    q, k, v = inputs(rng, np.float32, (), 4096, 4096, 16, 16)
    tracemalloc.start()
    try:
        y, ctx = attention(q, k, v, return_context=True)
        attention_backward(ctx, y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 << 20


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_no_tokens(shape):
    """No queries give an empty result; no keys give zeros."""
    q, k, v = np.ones((2, shape[0], 3)), np.ones((2, shape[1], 3)), np.ones((2, shape[1], 4))
    y, ctx = attention(q, k, v, return_context=True)
    assert y.shape == (2, shape[0], 4) and not y.any()
    assert [g.shape for g in attention_backward(ctx, y)] == [q.shape, k.shape, v.shape]


def test_refusals(rng):
    """Shapes that would broadcast, dtypes that differ, integer masks, words that are none."""
    q, k, v = inputs(rng, np.float32)
    with pytest.raises(ShapeError, match=r"k must have shape \(2, 3, 'keys', 4\), got \(3, 9, 4\)"):
        attention(q, k[0], v)
    with pytest.raises(ShapeError, match="v must have shape"):
        attention(q, k, v[..., :8, :])
    with pytest.raises(DtypeError, match="k must have the dtype of q, float32, got float64"):
        attention(q, k.astype(np.float64), v)
    with pytest.raises(DtypeError, match="mask must be boolean"):
        attention(q, k, v, mask=np.ones((7, 9), int))
    with pytest.raises(ShapeError, match=r"mask must have shape \(…, 7, 9\)"):
        attention(q, k, v, mask=np.ones((9, 7), bool))
    with pytest.raises(ShapeError, match="mask must broadcast"):
        attention(q, k, v, mask=np.ones((3, 3, 7, 9), bool))
    with pytest.raises(RangeError, match="causal must be one of None, 'top_left', 'bottom_right', got True"):
        attention(q, k, v, causal=True)
    with pytest.raises(RangeError, match="chunk_size"):
        attention(q, k, v, chunk_size=0)
    with pytest.raises(ShapeError, match="q must have shape"):
        attention(q[0, 0, 0], k, v)
    _, ctx = attention(q, k, v, return_context=True)
    with pytest.raises(ShapeError, match="dout must have the shape of the result"):
        attention_backward(ctx, q)
