"""Layers: gradients by the complex step or differences, contexts that do not mix, refusals, state."""

from __future__ import annotations

import numpy as np
import pytest

from asyncflow.compute import (
    GELU,
    BatchNorm,
    Dropout,
    Flatten,
    LayerNorm,
    Linear,
    LogSoftmax,
    Parameter,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
    cross_entropy,
    cross_entropy_with_grad,
    dropout_backward,
    dropout_forward,
    workers,
)
from asyncflow.errors import DtypeError, RangeError, ShapeError

from .reference import error


def net(dtype=np.float64, rate=0.3):
    rng = np.random.default_rng(5)
    return Sequential(
        Flatten(), Linear(6, 8, rng=rng, dtype=dtype), BatchNorm(8, dtype=dtype), ReLU(),
        Dropout(rate, seed=1), Linear(8, 7, rng=rng, dtype=dtype), LayerNorm(7, dtype=dtype), GELU(),
        Sequential(Linear(7, 5, rng=rng, dtype=dtype), Tanh(), Sigmoid()), Linear(5, 3, rng=rng, dtype=dtype),
    )  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_a_whole_model(training, rng):
    """Every parameter's gradient, and the input's, agree with central differences of the loss."""
    model, x, y = net(), rng.standard_normal((12, 2, 3)), rng.integers(0, 3, 12)

    def loss(x):
        return cross_entropy(model.forward(x, training=training, step=3)[0], y)

    scores, ctx = model.forward(x, training=training, step=3)
    dx = model.backward(ctx, cross_entropy_with_grad(scores, y)[1])
    assert dx.shape == x.shape
    for array, grad in [(x, dx), *((p.value, p.grad) for p in model.parameters())]:
        flat, wanted = array.reshape(-1), grad.reshape(-1)
        for i in rng.integers(0, flat.size, 4):
            before = flat[i]
            flat[i] = before + 1e-6
            up = loss(x)
            flat[i] = before - 1e-6
            down = loss(x)
            flat[i] = before
            assert (up - down) / 2e-6 == pytest.approx(wanted[i], rel=1e-4, abs=1e-8)


def test_backwards_add_up_until_zero_grad(rng):
    """Two backwards give twice the gradient; zero_grad starts again."""
    layer = Linear(3, 2, rng=rng, dtype=np.float64)
    x, dy = rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    _, ctx = layer.forward(x)
    layer.backward(ctx, dy)
    once = layer.weight.grad.copy()
    np.testing.assert_allclose(once, dy.T @ x)
    layer.backward(ctx, dy)
    np.testing.assert_allclose(layer.weight.grad, 2 * once)
    layer.weight.zero_grad()
    assert not layer.weight.grad.any()


def test_linear_on_more_axes(rng):
    """The last axis is multiplied, the others stay."""
    layer = Linear(3, 2, rng=rng, dtype=np.float64)
    x = rng.standard_normal((4, 5, 3))
    y, ctx = layer.forward(x)
    np.testing.assert_allclose(y, x @ layer.weight.value.T + layer.bias.value)
    assert layer.backward(ctx, y).shape == x.shape


def test_forwards_may_interleave(rng):
    """A second forward before the first backward changes nothing."""
    model, dy = net(), rng.standard_normal((12, 3))
    x1, x2 = rng.standard_normal((2, 12, 2, 3))
    _, ctx = model.forward(x1, training=True, step=0)
    alone = model.backward(ctx, dy)
    _, ctx = model.forward(x1, training=True, step=0)
    model.forward(x2, training=True, step=1)
    np.testing.assert_array_equal(model.backward(ctx, dy), alone)


def test_softmax_layers(rng):
    """Softmax and LogSoftmax work on the last axis."""
    x = rng.standard_normal((3, 4))
    y, ctx = Softmax().forward(x)
    np.testing.assert_allclose(y.sum(axis=1), 1)
    np.testing.assert_allclose(LogSoftmax().forward(x)[0], np.log(y))
    assert np.abs(Softmax().backward(ctx, np.ones_like(y))).max() < 1e-15


def test_dropout_mask_follows_from_its_key(rng):
    """Equal keys are equal masks for any number of workers, other keys are others; backward has the same."""
    x = rng.standard_normal((3000, 700)).astype(np.float32)
    y, ctx = dropout_forward(x, 0.25, key=(1, 2, 3))
    kept = y != 0
    assert kept.mean() == pytest.approx(0.75, abs=0.005)
    np.testing.assert_allclose(y[kept], x[kept] / 0.75, rtol=1e-6)
    for n in (2, 3):
        with workers(n):
            np.testing.assert_array_equal(dropout_forward(x, 0.25, key=(1, 2, 3))[0], y)
    np.testing.assert_array_equal(dropout_backward(ctx, np.ones_like(x)) != 0, kept)
    np.testing.assert_array_equal(dropout_backward(ctx, np.ones(x.shape, np.float64)) != 0, kept)
    assert (dropout_forward(x, 0.25, key=(1, 2, 4))[0] != y).any()


def test_dropout_ends():
    """Rate 0 keeps all, rate 1 drops all, NaN and inf included; evaluation keeps all."""
    x = np.array([1.0, np.inf, np.nan])
    np.testing.assert_array_equal(dropout_forward(x, 0.0, key=(0,))[0], x)
    np.testing.assert_array_equal(dropout_forward(x, 1.0, key=(0,))[0], [0, 0, 0])
    np.testing.assert_array_equal(Dropout(0.5).forward(x)[0], x)
    with pytest.raises(RangeError, match=r"rate must be in \[0, 1\], got 1.5"):
        Dropout(1.5)


def test_dropout_layers_have_masks_of_their_own():
    """Two layers of one model, and two steps of one layer, differ; a given step repeats."""
    model = Sequential(Dropout(0.5), Dropout(0.5))
    x = np.ones((1, 2000))
    first = Sequential(Dropout(0.5)).forward(x, training=True, step=0)[0] != 0
    both = model.forward(x, training=True, step=0)[0] != 0
    assert (both & first == both).all() and 0.2 < both.mean() < 0.3
    np.testing.assert_array_equal(model.forward(x, training=True, step=0)[0] != 0, both)
    one, two = (model.forward(x, training=True)[0] for _ in range(2))
    assert (one != two).any()


def test_state_dict(rng):
    """Saved arrays bring another model to the same results; arrays that do not fit change nothing."""
    a, b, x = net(), net(), rng.standard_normal((9, 2, 3))
    a.forward(x, training=True)
    state = a.state_dict()
    assert "2.running_mean" in state and "8.0.weight" in state
    for p in b.parameters():
        p.value += 1
    b.load_state_dict(state)
    np.testing.assert_array_equal(a(x), b(x))
    with pytest.raises(RangeError, match=r"missing \['2.gamma'\]"):
        b.load_state_dict({k: v for k, v in state.items() if k != "2.gamma"})
    with pytest.raises(ShapeError, match="2.gamma must have shape"):
        b.load_state_dict(state | {"2.gamma": np.ones(9)})


def test_tied_parameters_are_listed_once(rng):
    """A layer used twice has one set of parameters."""
    layer = Linear(3, 3, rng=rng)
    assert len(Sequential(layer, ReLU(), layer).parameters()) == 2


def test_float16_layers_store_float16_and_compute_in_float32(rng):
    """Results are float16, within its rounding of the float32 model's; gradients are float32."""
    half, full = net(np.float16, 0), net(np.float32, 0)
    x = rng.standard_normal((64, 2, 3))
    y, ctx = half.forward(x.astype(np.float16), training=True)
    wanted = full.forward(x.astype(np.float32), training=True)[0]
    assert y.dtype == np.float16 and error(y, wanted) < 2e-2
    half.backward(ctx, y.astype(np.float32))
    assert all(p.grad.dtype == np.float32 and np.isfinite(p.grad).all() for p in half.parameters())


def test_refusals(rng):
    """Shapes and dtypes that do not fit, integer parameters, a generator that is none."""
    layer = Linear(3, 2, rng=rng)
    with pytest.raises(ShapeError, match=r"x must have shape \(…, 3\), got \(4, 2\)"):
        layer.forward(np.ones((4, 2), np.float32))
    with pytest.raises(DtypeError, match="layer's dtype float32, got float64"):
        layer.forward(np.ones((4, 3)))
    _, ctx = layer.forward(np.ones((4, 3), np.float32))
    with pytest.raises(ShapeError, match=r"dy must have the shape of the result, \(4, 2\), got \(4, 1\)"):
        layer.backward(ctx, np.ones((4, 1), np.float32))
    with pytest.raises(DtypeError, match="weight must be a floating NumPy array to be trained, got int64"):
        Linear(3, 2, rng=rng, dtype=np.int64)
    with pytest.raises(DtypeError, match="to be trained, got list"):
        Parameter([1.0])
    with pytest.raises(DtypeError, match="rng must be a numpy.random.Generator, got int"):
        Linear(3, 2, rng=0)
    with pytest.raises(RangeError, match="in_features"):
        Linear(0, 2, rng=rng)
