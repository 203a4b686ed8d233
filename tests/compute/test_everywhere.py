"""What holds for every operation: a table of all of them, and the same questions to each."""

from __future__ import annotations

import numpy as np
import pytest

from asyncflow import compute
from asyncflow.compute import tiles

ROWS, COLUMNS = 24, 16


def _norm(training):
    def run(x, dy, y):
        gamma, beta = np.linspace(0.5, 2, COLUMNS, dtype=x.dtype), np.ones(COLUMNS, x.dtype)
        mean, var = np.zeros(COLUMNS, x.dtype), np.ones(COLUMNS, x.dtype)
        out, ctx = compute.batch_norm_forward(x, gamma, beta, mean, var, training=training)
        return (out, *compute.batch_norm_backward(ctx, dy), mean, var)

    return run


def _layer_norm(x, dy, y):
    out, ctx = compute.layer_norm_forward(x, None, None)
    return (out, *compute.layer_norm_backward(ctx, dy)[:1])


def _dropout(x, dy, y):
    out, ctx = compute.dropout_forward(x, 0.3, key=(1, 2, 3))
    return out, compute.dropout_backward(ctx, dy)


def _attention(x, dy, y):
    q, k = x.reshape(len(x), 4, 4), dy.reshape(len(x), 4, 4)
    out, ctx = compute.attention(q, k, q, causal="bottom_right", return_context=True)
    return (out, *compute.attention_backward(ctx, k))


def _linear(x, dy, y):
    layer = compute.Linear(COLUMNS, COLUMNS, rng=np.random.default_rng(0), dtype=x.dtype)
    out, ctx = layer.forward(x, training=True)
    return out, layer.backward(ctx, dy), layer.weight.grad, layer.bias.grad


def _activation(name, source):
    def run(x, dy, y):
        out = getattr(compute, name)(x)
        return out, getattr(compute, f"{name}_backward")(x if source == "x" else out, dy)

    return run


OPERATIONS = {
    **{n: _activation(n, "y") for n in ("relu", "sigmoid", "tanh", "softmax", "log_softmax")},
    **{n: _activation(n, "x") for n in ("log_sigmoid", "gelu")},
    "mse": lambda x, dy, y: compute.mse_loss_with_grad(x, dy),
    "huber": lambda x, dy, y: compute.huber_loss_with_grad(x, dy),
    "binary_cross_entropy": lambda x, dy, y: compute.binary_cross_entropy_with_grad(x, dy > 0),
    "cross_entropy": lambda x, dy, y: compute.cross_entropy_with_grad(x, y),
    "smoothed": lambda x, dy, y: compute.cross_entropy_with_grad(x, y, label_smoothing=0.2),
    "spread": lambda x, dy, y: compute.cross_entropy_with_grad(x, compute.softmax(dy)),
    "nll": lambda x, dy, y: compute.nll_loss_with_grad(x, y),
    "batch_norm": _norm(True),
    "batch_norm, evaluation": _norm(False),
    "layer_norm": _layer_norm,
    "dropout": _dropout,
    "attention": _attention,
    "linear": _linear,
}
#: Whose rows do not depend on the other rows of the batch, when not averaged over it.
BY_ROW = {
    **{
        n: OPERATIONS[n] for n in ("relu", "sigmoid", "tanh", "softmax", "log_softmax", "log_sigmoid", "gelu")
    },
    "mse": lambda x, dy, y: compute.mse_loss_with_grad(x, dy, reduction="none"),
    "huber": lambda x, dy, y: compute.huber_loss_with_grad(x, dy, reduction="none"),
    "cross_entropy": lambda x, dy, y: compute.cross_entropy_with_grad(x, y, reduction="none"),
    "smoothed": lambda x, dy, y: compute.cross_entropy_with_grad(x, y, label_smoothing=0.2, reduction="none"),
    "nll": lambda x, dy, y: compute.nll_loss_with_grad(x, y, reduction="none"),
    "batch_norm, evaluation": lambda x, dy, y: _norm(False)(x, dy, y)[:2],
    "layer_norm": _layer_norm,
    "attention": _attention,
}


def arguments(rng, dtype=np.float32, rows=ROWS, spread=3.0):
    x, dy = ((rng.standard_normal((rows, COLUMNS)) * spread).astype(dtype) for _ in range(2))
    return x, dy, rng.integers(0, COLUMNS, rows)


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(tiles.plan, "__kwdefaults__", {"tile_bytes": 256})


def same(got, wanted):
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", OPERATIONS)
def test_equal_bits_for_1_to_8_workers(name, rng, small_tiles, kernel):
    """Every value and every gradient, whatever the number of threads."""
    given = arguments(rng)
    wanted = OPERATIONS[name](*given)
    for n in (2, 3, 8):
        with compute.workers(n):
            same(OPERATIONS[name](*given), wanted)


@pytest.mark.parametrize("name", OPERATIONS)
def test_inputs_of_any_layout_are_read_and_not_written(name, rng, kernel):
    """Strided, reversed, column-major and read-only inputs give the bits of a contiguous copy."""
    x, dy, y = arguments(rng)
    wanted = OPERATIONS[name](x, dy, y)
    for change in (
        np.asfortranarray,
        lambda a: np.repeat(a, 2, axis=0)[::2],
        lambda a: np.ascontiguousarray(a[::-1])[::-1],
    ):
        given = [change(a) for a in (x, dy, y)]
        before = [a.copy() for a in given]
        for a in given:
            a.flags.writeable = False
        same(OPERATIONS[name](*given), wanted)
        same(given, before)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.longdouble])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_float_dtype_is_kept(name, dtype, rng, kernel):
    """Arrays come out in the dtype they went in, and near the float64 result."""
    x, dy, y = arguments(rng, dtype=np.float16, spread=1.0)
    wanted = OPERATIONS[name](x.astype(np.float64), dy.astype(np.float64), y)
    for got, want in zip(OPERATIONS[name](x.astype(dtype), dy.astype(dtype), y), wanted, strict=True):
        if np.shape(got) == (ROWS, COLUMNS):
            assert got.dtype == dtype
        scale = np.abs(want).max(initial=1.0)
        near = 1e-2 if dtype == np.float16 else 1e-5
        assert (np.abs(np.asarray(got, np.float64) - want) <= near * scale).all()


@pytest.mark.parametrize("spread", [1e-30, 3.0, 1e4, 1e30])
@pytest.mark.parametrize("name", OPERATIONS)
def test_nothing_warns(name, spread, rng, kernel):
    """Numbers of any size, with every warning an error: infinities come through as values."""
    with np.errstate(all="raise"):
        OPERATIONS[name](*arguments(rng, spread=spread))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("rows", [0, 2])
def test_batches_of_none_and_of_two(name, rows, rng, kernel):
    """An empty batch gives empty results (a mean of nothing is NaN), a small one finite numbers."""
    results = OPERATIONS[name](*arguments(rng, rows=rows))
    for result in results:
        assert np.isnan(result) or np.isfinite(result) if np.ndim(result) == 0 else True
        assert np.isfinite(result).all() or rows == 0


@pytest.mark.parametrize("spread", [0.1, 3.0, 60.0])
@pytest.mark.parametrize("name", BY_ROW)
def test_rows_do_not_see_their_neighbours(name, spread, rng, kernel):
    """Permuted rows, and one row alone, have the bits they had in the batch of small and large numbers."""
    x, dy, y = arguments(rng, spread=spread)
    x[::5] *= 50
    wanted = BY_ROW[name](x, dy, y)
    order = rng.permutation(ROWS)
    same(BY_ROW[name](x[order], dy[order], y[order]), [w[order] for w in wanted])
    for row in (0, 1, 7):
        one = slice(row, row + 1)
        same(BY_ROW[name](x[one], dy[one], y[one]), [w[one] for w in wanted])
