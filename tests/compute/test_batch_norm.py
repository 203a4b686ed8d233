"""Batch and layer normalisation: values, gradients, running statistics, long columns, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from asyncflow.compute import (
    batch_norm_backward,
    batch_norm_forward,
    layer_norm_backward,
    layer_norm_forward,
    workers,
)
from asyncflow.errors import DtypeError, RangeError, ShapeError

from .reference import error, slope, tolerance

LAYOUTS = [((40, 3), 1), ((5, 3, 4, 2), 1), ((5, 4, 2, 3), -1), ((7, 3, 6), 1), ((3, 9), 0)]


def formula(x, gamma, beta, axis, mean=None, var=None, eps=1e-5):
    axis %= x.ndim
    others = tuple(i for i in range(x.ndim) if i != axis)
    shape = [1] * x.ndim
    shape[axis] = -1
    if mean is None:
        mean = x.mean(axis=others)
        var = ((x - mean.reshape(shape)) ** 2).mean(axis=others)
    return gamma.reshape(shape) * (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + eps) + (
        beta.reshape(shape)
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.5, 20.0])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
def test_values_and_gradients(shape, axis, training, offset, dtype, rng, kernel):
    """Result and gradients of each mode are those of the formula and its derivative, near and far means."""
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    x += dtype(offset)
    gamma, beta = (
        rng.standard_normal(shape[axis]).astype(dtype),
        rng.standard_normal(shape[axis]).astype(dtype),
    )
    mean, var = np.full(shape[axis], offset + 0.3, dtype), np.full(shape[axis], 1.7, dtype)
    fixed = {} if training else {"mean": mean.astype(np.float64), "var": var.astype(np.float64)}
    wide, up = x.astype(np.float64), dy.astype(np.float64)
    g, b = gamma.astype(np.float64), beta.astype(np.float64)
    wanted = formula(wide, g, b, axis, **fixed)
    y, ctx = batch_norm_forward(x, gamma, beta, mean, var, training=training, channel_axis=axis)
    dx, dgamma, dbeta = batch_norm_backward(ctx, dy)
    near = tolerance(dtype, 1e-5)
    assert y.dtype == dx.dtype == dtype
    assert error(y, wanted) < near
    assert error(dx, slope(lambda z: formula(z, g, b, axis, **fixed), wide, up)) < near
    assert error(dgamma, slope(lambda z: formula(wide, z, b, axis, **fixed), g, up)) < near
    assert error(dbeta, slope(lambda z: formula(wide, g, z, axis, **fixed), b, up)) < near


def test_running_statistics(rng):
    """PyTorch's meaning: momentum weighs the new value, and the stored variance is the unbiased one."""
    x = rng.standard_normal((4, 3)) * 2 + 1
    mean, var = np.zeros(3), np.ones(3)
    batch_norm_forward(x, None, None, mean, var, training=True, momentum=0.1)
    np.testing.assert_allclose(mean, 0.1 * x.mean(axis=0))
    np.testing.assert_allclose(var, 0.9 + 0.1 * x.var(axis=0, ddof=1))
    before = mean.copy()
    batch_norm_forward(x, None, None, mean, var, training=False)
    np.testing.assert_array_equal(mean, before)


def test_momentum_none_is_the_plain_average(rng):
    """Three batches weigh a third each."""
    batches = rng.standard_normal((3, 8, 2))
    mean, var = np.zeros(2), np.ones(2)
    for i, x in enumerate(batches):
        batch_norm_forward(x, None, None, mean, var, training=True, momentum=None, batches_seen=i)
    np.testing.assert_allclose(mean, batches.mean(axis=(0, 1)))
    np.testing.assert_allclose(var, batches.var(axis=1, ddof=1).mean(axis=0))


@pytest.mark.parametrize("low", [0, 100])
def test_a_million_rows_of_float32(low, rng, kernel):
    """Where NumPy's mean(axis=0) is 1 % wrong and its variance 12 times too large, both are right to 1e-6."""
    x = rng.uniform(low, low + 1, (2**20, 2)).astype(np.float32)
    mean, var = np.zeros(2), np.zeros(2)
    with workers(2):
        batch_norm_forward(x, None, None, mean, var, training=True, momentum=1.0)
    wide = x.astype(np.float64)
    assert error(mean, wide.mean(axis=0)) < 1e-6
    assert error(var, wide.var(axis=0, ddof=1)) < 1e-6


@pytest.mark.parametrize("rows", [2, 3, 5, 17, 256, 259, 521])
def test_rows_that_do_not_divide(rows, rng, kernel):
    """Rows are read several at once and in stretches; what is left over at the end of either counts too."""
    x, dy = (rng.standard_normal((rows, 33)).astype(np.float32) for _ in range(2))
    mean, var, ones, wide = np.zeros(33), np.zeros(33), np.ones(33), x.astype(np.float64)
    _, ctx = batch_norm_forward(x, None, None, mean, var, training=True, momentum=1.0)
    _, dgamma, dbeta = batch_norm_backward(ctx, dy)
    hat = formula(wide, ones, np.zeros(33), 1)
    assert error(mean, wide.mean(axis=0)) < 1e-5 and error(var, wide.var(axis=0, ddof=1)) < 1e-5
    assert error(dbeta, dy.sum(axis=0, dtype=np.float64)) < 1e-5
    assert error(dgamma, (dy * hat).sum(axis=0)) < 1e-5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_number_stays_in_its_column(bad, rng, kernel):
    """NaN and infinity come through as NaN, in their own column only."""
    x = rng.standard_normal((300, 5)).astype(np.float32)
    x[7, 2] = bad
    y, ctx = batch_norm_forward(x, None, None, None, None, training=True)
    dx, dgamma, _ = batch_norm_backward(ctx, x[::-1])
    for result in (y[8], dx[8], dgamma):
        np.testing.assert_array_equal(np.isnan(result), [False, False, True, False, False])


def test_a_constant_column(rng):
    """No variance is no division by zero: the result is beta."""
    x = np.full((100, 2), 1e4, np.float32)
    with np.errstate(all="raise"):
        y, ctx = batch_norm_forward(x, None, np.array([1.0, 2.0]), None, None, training=True)
        batch_norm_backward(ctx, x)
    np.testing.assert_allclose(y[0], [1, 2], atol=1e-3)


def test_equal_bits(rng, kernel):
    """1 to 4 workers give the same bits, forward and backward, matrices and images."""
    for shape in ((4096, 700), (64, 8, 40, 40)):
        x, dy = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
        wanted = None
        for n in (1, 2, 3, 4):
            with workers(n):
                y, ctx = batch_norm_forward(x, None, None, None, None, training=True)
                got = (y, *batch_norm_backward(ctx, dy))
            wanted = wanted or got
            for a, b in zip(got, wanted):
                np.testing.assert_array_equal(a, b)


def test_two_forwards_do_not_mix(rng):
    """The context belongs to the call: interleaved forwards keep their own gradients."""
    x1, x2, dy = rng.standard_normal((3, 6, 2))
    _, ctx1 = batch_norm_forward(x1, None, None, None, None, training=True)
    alone = batch_norm_backward(ctx1, dy)[0]
    _, ctx1 = batch_norm_forward(x1, None, None, None, None, training=True)
    batch_norm_forward(x2, None, None, None, None, training=True)
    np.testing.assert_array_equal(batch_norm_backward(ctx1, dy)[0], alone)


def test_float16_and_empty(rng):
    """float16 is computed in float32; an empty batch gives an empty result and no statistics."""
    x = (rng.standard_normal((50, 3)) + 300).astype(np.float16)
    y, ctx = batch_norm_forward(x, None, None, None, None, training=True)
    assert y.dtype == np.float16 and np.isfinite(y).all()
    assert batch_norm_backward(ctx, x)[0].dtype == np.float16
    mean = np.zeros(3)
    y, ctx = batch_norm_forward(np.zeros((0, 3)), None, None, mean, np.ones(3), training=True)
    assert y.shape == (0, 3) and batch_norm_backward(ctx, y)[1].shape == (3,)


def test_refusals():
    """A batch of one, parameters that do not fit, running arrays that cannot be updated."""
    x, ones = np.ones((4, 3)), np.ones(3)
    with pytest.raises(RangeError, match=r"at least two numbers per channel .* got x of shape \(1, 3\)"):
        batch_norm_forward(x[:1], None, None, None, None, training=True)
    with pytest.raises(ShapeError, match=r"gamma must have shape \(3,\), got \(4,\)"):
        batch_norm_forward(x, np.ones(4), None, None, None, training=True)
    with pytest.raises(ShapeError, match=r"running_var must have shape \(3,\)"):
        batch_norm_forward(x, None, None, ones.copy(), np.ones((3, 1)), training=True)
    with pytest.raises(DtypeError, match="running_mean must be a writeable floating"):
        batch_norm_forward(x, None, None, np.ones(3, int), ones, training=True)
    with pytest.raises(RangeError, match="evaluation needs running_mean"):
        batch_norm_forward(x, None, None, None, None, training=False)
    with pytest.raises(ShapeError, match="at least two dimensions"):
        batch_norm_forward(ones, None, None, None, None, training=True)
    with pytest.raises(RangeError, match="momentum"):
        batch_norm_forward(x, None, None, ones.copy(), ones.copy(), training=True, momentum=2)
    _, ctx = batch_norm_forward(x, None, None, None, None, training=True)
    with pytest.raises(ShapeError, match=r"dy must have the shape of x, \(4, 3\), got \(4, 1\)"):
        batch_norm_backward(ctx, x[:, :1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_layer_norm(dtype, rng):
    """Values and gradients over the last axis."""
    x, dy = (rng.standard_normal((4, 5, 6)).astype(dtype) for _ in range(2))
    gamma, beta = rng.standard_normal(6), rng.standard_normal(6)

    def layer(x, gamma, beta):
        mean = x.mean(axis=-1, keepdims=True)
        var = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
        return gamma * (x - mean) / np.sqrt(var + 1e-5) + beta

    wide, up = x.astype(np.float64), dy.astype(np.float64)
    y, ctx = layer_norm_forward(x, gamma, beta)
    dx, dgamma, dbeta = layer_norm_backward(ctx, dy)
    assert y.dtype == dx.dtype == dtype
    assert error(y, layer(wide, gamma, beta)) < tolerance(dtype)
    assert error(dx, slope(lambda z: layer(z, gamma, beta), wide, up)) < tolerance(dtype)
    assert error(dgamma, slope(lambda z: layer(wide, z, beta), gamma, up)) < tolerance(dtype)
    assert error(dbeta, slope(lambda z: layer(wide, gamma, z), beta, up)) < tolerance(dtype)


def test_layer_norm_refusals():
    """Parameters must hold one number per feature; empty inputs are empty results."""
    with pytest.raises(ShapeError, match=r"gamma must have shape \(3,\)"):
        layer_norm_forward(np.ones((2, 3)), np.ones(2), None)
    y, ctx = layer_norm_forward(np.ones((0, 3)), None, None)
    assert y.shape == (0, 3) and layer_norm_backward(ctx, y)[0].shape == (0, 3)
