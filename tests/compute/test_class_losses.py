"""Cross-entropy and nll: every combination of options, values and gradients, and what is refused."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncflow.compute import (
    cross_entropy,
    cross_entropy_with_grad,
    loss_weight,
    nll_loss,
    nll_loss_with_grad,
)
from asyncflow.errors import DtypeError, RangeError, ShapeError

from . import reference
from .reference import error, slope, tolerance

WEIGHT = np.array([0.5, 2.0, 1.0, 0.0, 3.0])
COMBINATIONS = list(
    itertools.product(
        ["index", "ignored", "spread"],
        [None, WEIGHT],
        [0.0, 0.1],
        ["mean", "sum", "none"],
        [np.float32, np.float64],
    )
)


@pytest.mark.parametrize(("kind", "weight", "smoothing", "reduction", "dtype"), COMBINATIONS)
def test_values_and_gradients(kind, weight, smoothing, reduction, dtype, rng, kernel):
    """Loss and gradient are those of the plain formula, and its derivative by the complex step."""
    x = (rng.standard_normal((6, 5)) * 3).astype(dtype)
    if kind == "spread":
        targets = reference.softmax(rng.standard_normal((6, 5))).astype(dtype)
    else:
        targets = np.array([0, 4, 3, 2, 1, 1])
        if kind == "ignored":
            targets[[1, 4]] = -100
    options = {"weight": weight, "label_smoothing": smoothing, "reduction": reduction}
    loss, grad = cross_entropy_with_grad(x, targets, **options)
    wide = x.astype(np.float64)
    wanted = reference.cross_entropy(wide, targets, **options)
    assert error(loss, wanted) < tolerance(dtype)
    assert np.array_equal(cross_entropy(x, targets, **options), loss)
    assert isinstance(loss, np.ndarray if reduction == "none" else float)
    assert grad.dtype == dtype
    assert error(grad, slope(lambda z: reference.cross_entropy(z, targets, **options), wide)) < tolerance(
        dtype
    )


def test_nearly_certain_rows(kernel):
    """[20, 0, 0] in float32 is 4.12e-9 with a gradient of -4.12e-9, not 0."""
    for dtype, gap in ((np.float32, 20.0), (np.float64, 40.0)):
        wanted = math.log1p(2 * math.exp(-gap))
        loss, grad = cross_entropy_with_grad(np.array([[gap, 0, 0]], dtype), np.array([0]))
        assert loss == pytest.approx(wanted, rel=1e-6)
        assert grad[0, 0] == pytest.approx(-wanted, rel=1e-6)
        loss, grad = cross_entropy_with_grad(np.array([[gap, 0, 0]], dtype), np.array([[1, 0, 0]], dtype))
        assert loss == pytest.approx(wanted, rel=1e-6)


def test_a_large_loss_is_not_capped(kernel):
    """A class with probability e^-1000 costs 1000 nats: no epsilon anywhere."""
    assert cross_entropy(np.array([[1000.0, 0.0]], np.float32), np.array([1])) == 1000.0


def test_infinite_logits(kernel):
    """-inf rules a class out; on the true class the loss is inf; whole rows of -inf are NaN."""
    inf = np.inf
    x = np.array([[0, -inf, 0], [0, -inf, 0], [-inf, -inf, -inf], [inf, 0, 0]], np.float32)
    with np.errstate(all="raise"):
        losses = cross_entropy(x, np.array([0, 1, 0, 0]), reduction="none")
    assert losses[0] == pytest.approx(math.log(2)) and losses[1] == inf and np.isnan(losses[2:]).all()


def test_ignored_rows_may_hold_anything(kernel):
    """A NaN in an ignored row does not reach the loss or the gradient."""
    x = np.array([[np.nan, 0.0], [0.0, 0.0]])
    for smoothing in (0.0, 0.1):
        loss, grad = cross_entropy_with_grad(x, np.array([-100, 1]), label_smoothing=smoothing)
        assert loss == pytest.approx(math.log(2))
        assert (grad[0] == 0).all() and np.isfinite(grad).all()


def test_mean_of_nothing_is_nan(kernel):
    """No rows, and rows that are all ignored, have no mean; their sum is 0."""
    with np.errstate(all="raise"):
        assert math.isnan(cross_entropy(np.zeros((0, 3)), np.zeros(0, int)))
        assert math.isnan(cross_entropy_with_grad(np.zeros((2, 3)), np.array([-100, -100]))[0])
        assert cross_entropy(np.zeros((2, 3)), np.array([-100, -100]), reduction="sum") == 0


def test_float16_is_computed_in_float32(kernel):
    """float16 logits give the float32 result, rounded: no overflow, gradients that do not vanish in sums."""
    x = np.full((100, 3), 300, np.float16)
    loss, grad = cross_entropy_with_grad(x, np.zeros(100, int), reduction="sum")
    assert loss == pytest.approx(100 * math.log(3), rel=1e-6) and grad.dtype == np.float16


REFUSED = [
    (np.array([0, 3]), RangeError, r"targets must be in \[0, 3\) or -100 \(ignored\), got 3 in row 1"),
    (np.array([0, -1]), RangeError, "got -1 in row 1"),
    (np.array([[0], [1]]), ShapeError, r"shape \(2,\), got \(2, 1\); use targets.ravel\(\)"),
    (np.array([0]), ShapeError, r"one class index per row, shape \(2,\), got \(1,\)"),
    (np.array([True, False]), DtypeError, "targets must be integer class indices"),
    (np.array([0.0, 1.0]), ShapeError, r"are probabilities and must have shape \(2, 3\)"),
    (np.zeros((2, 4)), ShapeError, r"must have shape \(2, 3\), got \(2, 4\)"),
    (np.eye(3, dtype=int)[:2], ShapeError, "one class index per row"),
]


@pytest.mark.parametrize(("targets", "kind", "text"), REFUSED)
def test_bad_targets(targets, kind, text):
    """Targets that do not fit are refused; none is broadcast, wrapped round or taken from the end."""
    with pytest.raises(kind, match=text):
        cross_entropy(np.zeros((2, 3)), targets)


def test_bad_options():
    """Options out of range name themselves."""
    x, y = np.zeros((2, 3)), np.array([0, 1])
    with pytest.raises(RangeError, match="label_smoothing"):
        cross_entropy(x, y, label_smoothing=1.0)
    with pytest.raises(RangeError, match="reduction must be one of 'mean', 'sum', 'none', got 'avg'"):
        cross_entropy(x, y, reduction="avg")
    with pytest.raises(ShapeError, match=r"weight must have shape \(3,\), got \(2,\)"):
        cross_entropy(x, y, weight=np.ones(2))
    with pytest.raises(ShapeError, match=r"logits must have shape \(n, classes\), got \(2, 3, 4\)"):
        cross_entropy(np.zeros((2, 3, 4)), y)
    with pytest.raises(RangeError, match="ignore_index needs class indices"):
        cross_entropy(x, np.ones((2, 3)) / 3, ignore_index=1)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_nll_is_the_same_loss_from_log_probabilities(weight, reduction, rng):
    """nll of log_softmax is cross_entropy; its gradient sits on the classes."""
    x, y = rng.standard_normal((6, 5)), np.array([0, 4, -100, 2, 1, 3])
    logp = reference.log_softmax(x)
    options = {"weight": weight, "reduction": reduction}
    np.testing.assert_allclose(nll_loss(logp, y, **options), cross_entropy(x, y, **options), rtol=1e-12)
    _, grad = nll_loss_with_grad(logp, y, **options)
    w = np.ones(5) if weight is None else weight
    wanted = np.zeros((6, 5))
    kept = [0, 1, 3, 4, 5]
    wanted[kept, y[kept]] = -w[y[kept]] / (w[y[kept]].sum() if reduction == "mean" else 1)
    np.testing.assert_allclose(grad, wanted)


def test_loss_weight_is_the_divisor_of_the_mean():
    """sum = mean · loss_weight, for each kind of target."""
    x, y = np.random.default_rng(0).standard_normal((4, 5)), np.array([0, 4, -100, 1])
    for weight in (None, WEIGHT):
        mean, total = (cross_entropy(x, y, weight=weight, reduction=r) for r in ("mean", "sum"))
        assert total == pytest.approx(mean * loss_weight(y, weight=weight))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_invariants(n, classes, seed):
    """The loss is not negative, the gradient's rows sum to 0, and the order of rows does not matter."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, classes)) * 10, rng.integers(0, classes, n)
    with np.errstate(all="raise"):
        loss, grad = cross_entropy_with_grad(x, y)
    assert loss >= 0
    assert np.abs(grad.sum(axis=1)).max() < 1e-12
    order = rng.permutation(n)
    assert cross_entropy(x[order], y[order]) == pytest.approx(loss, rel=1e-12)
