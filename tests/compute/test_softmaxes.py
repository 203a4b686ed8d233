"""softmax and log_softmax: values, gradients, and the rules for rows that are not finite."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from asyncflow.compute import log_softmax, log_softmax_backward, softmax, softmax_backward

from . import reference
from .reference import error, slope, tolerance


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_values_on_every_axis(axis, dtype, rng, kernel):
    """The result on any axis is that of the formula in float64."""
    x = (rng.standard_normal((5, 6, 7)) * 3).astype(dtype)
    wide = x.astype(np.float64)
    assert error(softmax(x, axis), reference.softmax(wide, axis)) < tolerance(dtype)
    assert error(log_softmax(x, axis), reference.log_softmax(wide, axis)) < tolerance(dtype)
    assert softmax(x, axis).dtype == log_softmax(x, axis).dtype == dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("axis", [0, -1])
def test_gradients(axis, dtype, rng, kernel):
    """The backward is the derivative by the complex step."""
    x, dy = (rng.standard_normal((4, 5)).astype(dtype) for _ in range(2))
    wide, up = x.astype(np.float64), dy.astype(np.float64)
    got = softmax_backward(softmax(x, axis), dy, axis)
    assert error(got, slope(lambda z: reference.softmax(z, axis), wide, up)) < tolerance(dtype)
    got = log_softmax_backward(log_softmax(x, axis), dy, axis)
    assert error(got, slope(lambda z: reference.log_softmax(z, axis), wide, up)) < tolerance(dtype)


def test_rows_that_are_not_finite(kernel):
    """Only -inf, a +inf or a NaN make the row NaN; a single -inf is a probability of 0. Nothing warns."""
    inf, nan = np.inf, np.nan
    x = np.array([[-inf, -inf], [inf, 0], [nan, 0], [-inf, 0]], np.float32)
    with np.errstate(all="raise"):
        p, logp = softmax(x), log_softmax(x)
    assert np.isnan(p[:3]).all() and np.isnan(logp[:3]).all()
    np.testing.assert_array_equal(p[3], [0, 1])
    np.testing.assert_array_equal(logp[3], [-inf, 0])


def test_large_logits_keep_the_sum(kernel):
    """At 1e8 the sum would be lost if it were added to the maximum first."""
    x = np.full((1, 3000), 1e8, np.float32)
    assert log_softmax(x)[0, 0] == pytest.approx(-np.log(3000), rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nearly_certain_rows(dtype, kernel):
    """The log-probability of the certain class is relatively right, not 0."""
    gap = np.dtype(dtype).type(20 if dtype == np.float32 else 40)
    got = log_softmax(np.array([[gap, 0, 0]], dtype))[0, 0]
    assert got == pytest.approx(-np.log1p(2 * np.exp(-float(gap))), rel=1e-6)


rows = hnp.arrays(
    np.float32, st.tuples(st.integers(0, 8), st.integers(1, 9)), elements=st.floats(-50, 50, width=32)
)


@settings(max_examples=80, deadline=None)
@given(rows, st.integers(-30, 30))
def test_invariants(x, shift):
    """Rows sum to 1, a shift changes nothing but rounding, and rows do not see their neighbours."""
    with np.errstate(all="raise"):
        p = softmax(x)
    assert np.abs(p.sum(axis=1) - 1).max(initial=0) < 1e-6
    assert np.abs(softmax(x + np.float32(shift)) - p).max(initial=0) < 1e-5
    np.testing.assert_array_equal(softmax(x[::-1]), p[::-1])
    if len(x):
        np.testing.assert_array_equal(softmax(x[:1]), p[:1])
    assert (log_softmax(x) <= 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("offset", [-1e4, -90, -20, -13.8, 0, 60, 64.5, 85, 88.7, 1e4])
def test_each_row_is_relatively_right_wherever_it_lies(offset, spread, dtype, rng, kernel):
    """Near 0, where exp(x) is used as it is, and far from it, where the maximum is taken off first."""
    x = (rng.standard_normal((40, 17)) * spread + offset).astype(dtype)
    x[::7] -= dtype(offset)  # some rows of the same tile are near
    wide = x.astype(np.longdouble)
    unit = np.finfo(dtype).eps
    allowed = (10 + np.ptp(x, axis=1, keepdims=True)) * unit
    p, wanted = softmax(x), reference.softmax(wide)
    normal = wanted > 1e-30
    assert (np.abs(p - wanted) / wanted / allowed)[normal].max() < 1
    top = wide - wide.max(axis=1, keepdims=True)
    others = np.exp(top)
    others[np.arange(40), wide.argmax(axis=1)] = 0
    logp, wanted = log_softmax(x), top - np.log1p(others.sum(axis=1, keepdims=True))
    normal = wanted < -1e-30
    assert (np.abs(logp - wanted) / np.abs(wanted) / allowed)[normal].max() < 1


def test_no_classes():
    """An axis of length 0, and no rows, give empty arrays."""
    assert softmax(np.zeros((3, 0))).shape == (3, 0)
    assert log_softmax(np.zeros((0, 3))).shape == (0, 3)
