"""Squared error, Huber and binary cross-entropy: values, gradients, shapes, long sums."""

from __future__ import annotations

import math

import numpy as np
import pytest

from asyncflow import compute
from asyncflow.errors import RangeError, ShapeError

from .reference import error, slope, tolerance


def mse(x, t):
    return (x - t) ** 2


def huber(x, t, delta=1.5):
    d = x - t
    size = np.where(d.real < 0, -d, d)
    return np.where(np.abs(d.real) <= delta, d * d / 2, delta * (size - delta / 2))


def bce(x, t, pos_weight=2.5):
    e = np.exp(-np.where(x.real < 0, -x, x))
    rest = 2 * np.arctanh(e / (2 + e))
    return (1 - t) * (np.where(x.real > 0, x, 0) + rest) + pos_weight * t * (
        np.where(x.real > 0, 0, -x) + rest
    )


LOSSES = {
    "mse_loss": (mse, {}),
    "huber_loss": (huber, {"delta": 1.5}),
    "binary_cross_entropy": (bce, {"pos_weight": 2.5}),
}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients(name, reduction, dtype, rng):
    """Loss and gradient are those of the plain formula, and its derivative by the complex step."""
    formula, options = LOSSES[name]
    x, t = (rng.standard_normal((9, 4)) * 2).astype(dtype), rng.random((9, 4)).astype(dtype)
    wide, up = x.astype(np.float64), t.astype(np.float64)
    loss, grad = getattr(compute, name + "_with_grad")(x, t, reduction=reduction, **options)
    share = 1 / x.size if reduction == "mean" else 1.0
    wanted = formula(wide, up)
    wanted = wanted if reduction == "none" else wanted.sum() * share
    assert error(loss, wanted) < tolerance(dtype)
    assert np.array_equal(getattr(compute, name)(x, t, reduction=reduction, **options), loss)
    assert grad.dtype == dtype
    assert error(grad, slope(lambda z: formula(z, up), wide) * share) < tolerance(dtype)


@pytest.mark.parametrize("name", LOSSES)
def test_no_silent_broadcast(name):
    """(n, 1) against (n,) is an error, not n by n."""
    x = np.zeros((4, 1))
    with pytest.raises(ShapeError, match=r"target must have the shape of pred, \(4, 1\), got \(4,\)"):
        getattr(compute, name)(x, x[:, 0])
    with pytest.raises(ShapeError):
        getattr(compute, name + "_with_grad")(x[:, 0], x)


@pytest.mark.parametrize("name", LOSSES)
def test_empty(name):
    """The mean of nothing is NaN, its sum is 0, its gradient is empty."""
    with np.errstate(all="raise"):
        loss, grad = getattr(compute, name + "_with_grad")(np.zeros((0, 3)), np.zeros((0, 3)))
        assert getattr(compute, name)(np.zeros(0), np.zeros(0), reduction="sum") == 0
    assert math.isnan(loss) and grad.shape == (0, 3)


def test_integer_targets():
    """Labels may be integers or booleans; unsigned ones do not wrap round."""
    assert compute.mse_loss(np.zeros(2), np.array([3, 1], np.uint8)) == 5.0
    assert compute.binary_cross_entropy(np.zeros(2), np.array([True, False])) == pytest.approx(math.log(2))


def test_float16_does_not_overflow():
    """A squared error above 65504 is summed in float32."""
    assert compute.mse_loss(np.full(8, 400, np.float16), np.zeros(8, np.float16)) == 160000.0


def test_certain_labels_cost_nothing_times_infinity():
    """A label of 0 or 1 with an infinite logit on its side has loss 0, on the other side inf."""
    with np.errstate(all="raise"):
        losses = compute.binary_cross_entropy(
            np.array([np.inf, -np.inf, -np.inf]), np.array([1, 0, 1]), reduction="none"
        )
    np.testing.assert_array_equal(losses, [0, 0, np.inf])


def test_binary_cross_entropy_keeps_its_tail():
    """A certain prediction costs e^-20, not 0, and pulls as much."""
    loss, grad = compute.binary_cross_entropy_with_grad(np.array([20.0], np.float32), np.array([1]))
    assert loss == pytest.approx(math.log1p(math.exp(-20)), rel=1e-6)
    assert grad[0] == pytest.approx(-math.exp(-20), rel=1e-6)


def test_a_million_float32(rng):
    """A sum over 2^20 elements is right to 1e-7."""
    x = rng.uniform(100, 101, 2**20).astype(np.float32)
    wanted = (x.astype(np.float64) ** 2).mean()
    assert compute.mse_loss(x, np.zeros_like(x)) == pytest.approx(wanted, rel=1e-7)


def test_ranges():
    """delta and pos_weight must be above 0."""
    x = np.zeros(2)
    with pytest.raises(RangeError, match="delta must be a finite number above 0, got 0"):
        compute.huber_loss(x, x, delta=0)
    with pytest.raises(RangeError, match="pos_weight"):
        compute.binary_cross_entropy(x, x, pos_weight=-1)
