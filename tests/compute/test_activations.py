"""Activations against independent references, and what holds for any input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from asyncflow import compute
from asyncflow.errors import DtypeError, RangeError, ShapeError

from . import reference
from .reference import error, slope, tolerance

NAMES = ["relu", "sigmoid", "log_sigmoid", "tanh", "gelu", "gelu_tanh"]
FROM_RESULT = {"relu", "sigmoid", "tanh"}
WANTED = {"tanh": np.tanh} | {n: getattr(reference, n) for n in NAMES if n != "tanh"}


def call(name, *args, **kwargs):
    if "gelu_tanh" in name:
        return getattr(compute, name.replace("_tanh", ""))(*args, approximate="tanh", **kwargs)
    return getattr(compute, name)(*args, **kwargs)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_values(name, dtype, rng, kernel):
    """The result is that of the formula in float64, in the input's dtype."""
    x = (rng.standard_normal((37, 11)) * 4).astype(dtype)
    y = call(name, x)
    assert y.dtype == dtype and y.shape == x.shape
    assert error(y, WANTED[name](x.astype(np.float64))) < tolerance(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_gradients(name, dtype, rng, kernel):
    """The backward is the derivative by the complex step."""
    x = (rng.standard_normal((7, 5)) * 4).astype(dtype)
    dy = rng.standard_normal((7, 5)).astype(dtype)
    given_ = call(name, x) if name in FROM_RESULT else x
    got = call(name + "_backward", given_, dy)
    assert got.dtype == dtype
    assert error(got, slope(WANTED[name], x.astype(np.float64), dy.astype(np.float64))) < tolerance(dtype)


def test_sigmoid_keeps_its_tail(kernel):
    """No clipping: every normal number is relatively right, in both dtypes."""
    x = np.linspace(-700, 700, 9001)
    got, wanted = compute.sigmoid(x), np.where(x < 0, np.exp(x) / (1 + np.exp(x)), 1 / (1 + np.exp(-x)))
    assert (np.abs(got - wanted) / wanted).max() < 1e-14
    x32 = np.linspace(-87, 87, 9001).astype(np.float32)
    x = x32.astype(np.float64)
    wanted = np.where(x < 0, np.exp(x) / (1 + np.exp(x)), 1 / (1 + np.exp(-x)))
    assert (np.abs(compute.sigmoid(x32) - wanted) / wanted).max() < 5e-7


def test_log_sigmoid_keeps_its_tail():
    """log(sigmoid(x)) is right where sigmoid is 0 or 1."""
    got = compute.log_sigmoid(np.array([-800.0, 40.0, np.inf, -np.inf]))
    np.testing.assert_allclose(got, [-800, -4.248354255291589e-18, 0, -np.inf], rtol=1e-14)


def test_normal_tail_of_gelu():
    """gelu(-10) is -7.6e-23, not 0: the tail of the normal distribution is relatively right."""
    assert compute.gelu(np.array([-10.0]))[0] == pytest.approx(-10 * 7.619853024160527e-24, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_infinities_and_nan(name):
    """Infinities give the limit, NaN comes through, nothing warns."""
    with np.errstate(all="raise"):
        y = call(name, np.array([-np.inf, np.inf, np.nan]))
    low = -np.inf if name == "log_sigmoid" else -1.0 if name == "tanh" else 0.0
    high = {"sigmoid": 1.0, "log_sigmoid": 0.0, "tanh": 1.0}.get(name, np.inf)
    assert y[0] == low and y[1] == high and np.isnan(y[2])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (2, 3, 4)])
def test_shapes(name, shape):
    """Any shape, empty ones and a single number included."""
    assert call(name, np.zeros(shape, np.float32)).shape == shape


def layouts(x):
    yield x
    yield np.asfortranarray(x)
    yield np.repeat(x, 2, axis=1)[:, ::2]
    yield x[::-1][::-1]
    yield x[:, ::-1][:, ::-1]


@pytest.mark.parametrize("name", [*NAMES, "softmax", "log_softmax"])
def test_strides_do_not_matter_and_inputs_stay(name, rng, kernel):
    """Equal bits from any memory layout; a read-only input is read and not written."""
    x = rng.standard_normal((6, 8)).astype(np.float32)
    wanted = call(name, x)
    for view in layouts(x):
        view = view.view()
        view.flags.writeable = False
        np.testing.assert_array_equal(call(name, view), wanted)
    np.testing.assert_array_equal(call(name, x[::-1]), wanted[::-1])


@pytest.mark.parametrize("name", [*NAMES, "softmax", "log_softmax"])
def test_out(name, rng, kernel):
    """`out` receives the result, is returned, and may be the input or overlap it."""
    x = rng.standard_normal((6, 8)).astype(np.float32)
    wanted = call(name, x)
    out = np.empty_like(x)
    assert call(name, x, out=out) is out
    np.testing.assert_array_equal(out, wanted)
    same = x.copy()
    np.testing.assert_array_equal(call(name, same, out=same), wanted)
    store = np.concatenate([x, np.zeros((1, 8), np.float32)])
    np.testing.assert_array_equal(call(name, store[:-1], out=store[1:]), wanted)
    striped = np.zeros((6, 16), np.float32)
    call(name, x, out=striped[:, ::2])
    np.testing.assert_array_equal(striped[:, ::2], wanted)


def test_bad_arguments():
    """Each error names the argument, what was given and what is needed."""
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(DtypeError, match="x must be a floating array, got int64"):
        compute.relu(np.arange(3))
    with pytest.raises(DtypeError, match="floating"):
        compute.softmax(np.zeros(3, complex))
    with pytest.raises(ShapeError, match=r"out must have shape \(2, 3\), got \(3, 2\)"):
        compute.relu(x, out=np.empty((3, 2), np.float32))
    with pytest.raises(DtypeError, match="out must have dtype float32, got float64"):
        compute.relu(x, out=np.empty((2, 3)))
    with pytest.raises(RangeError, match="read-only"):
        out = np.empty_like(x)
        out.flags.writeable = False
        compute.relu(x, out=out)
    with pytest.raises(ShapeError, match=r"dy must have the shape of y, \(2, 3\), got \(2, 1\)"):
        compute.sigmoid_backward(x, x[:, :1])
    with pytest.raises(ShapeError, match="axis 2 is out of range"):
        compute.softmax(x, axis=2)
    with pytest.raises(RangeError, match="approximate"):
        compute.gelu(x, approximate="erf")


floats = hnp.arrays(
    st.sampled_from([np.float32, np.float64]),
    hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6),
    elements=st.floats(-1e4, 1e4, width=32),
)


@settings(max_examples=60, deadline=None)
@given(floats)
def test_any_finite_input(x):
    """Finite inputs give finite results without a warning, and tiny and subnormal numbers do not raise."""
    with np.errstate(all="raise"):
        for name in NAMES:
            assert np.isfinite(call(name, x)).all()
            call(name + "_backward", x, x)
