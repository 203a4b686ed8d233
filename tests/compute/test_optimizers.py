"""Optimizers, clipping, schedules, loss scaling: the rules written out, and what must not move."""

from __future__ import annotations

import math

import numpy as np
import pytest

from asyncflow.compute import (
    SGD,
    AdamW,
    LossScale,
    Parameter,
    clip_gradients,
    doubling,
    gradient_norm,
    linear_warmup,
    polynomial,
    step_decay,
    warmup_cosine,
    workers,
)
from asyncflow.errors import DtypeError, RangeError, ShapeError

from .reference import error, tolerance


def sgd_rule(p, grads, rate, momentum, nesterov, decay):
    velocity = 0
    for g in grads:
        g = g + decay * p
        velocity = momentum * velocity + g
        p = p - rate * (g + momentum * velocity if nesterov else velocity)
    return p


def adamw_rule(p, grads, rate, b1, b2, eps, decay):
    m = v = 0
    for t, g in enumerate(grads, 1):
        p = p * (1 - rate * decay)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        p = p - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return p


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("momentum", "nesterov", "decay"), [(0, False, 0), (0, False, 0.1), (0.9, False, 0.01), (0.9, True, 0.1)]
)
def test_sgd(momentum, nesterov, decay, dtype, rng, kernel):
    """Ten steps follow the rule."""
    start, grads = rng.standard_normal((7, 5)).astype(dtype), rng.standard_normal((10, 7, 5)).astype(dtype)
    p = Parameter(start.copy())
    optimizer = SGD([p], 0.05, momentum, nesterov, decay)
    for g in grads:
        p.grad[...] = g
        optimizer.step()
    wanted = sgd_rule(start.astype(np.float64), grads.astype(np.float64), 0.05, momentum, nesterov, decay)
    assert error(p.value, wanted) < tolerance(dtype)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0, False), (0.9, False), (0.9, True)])
def test_sgd_without_decay_keeps_an_infinite_value(momentum, nesterov, kernel):
    """Without decay the value is no part of the gradient: an infinite one stays, and is not NaN."""
    p = Parameter(np.array([np.inf, -np.inf, 1.0]))
    p.grad[...] = 1
    SGD([p], 0.5, momentum, nesterov).step()
    np.testing.assert_allclose(p.value, [np.inf, -np.inf, 0.05 if nesterov else 0.5])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw(decay, dtype, rng, kernel):
    """Ten steps follow the rule."""
    start, grads = rng.standard_normal((7, 5)).astype(dtype), rng.standard_normal((10, 7, 5)).astype(dtype)
    p = Parameter(start.copy())
    optimizer = AdamW([p], 0.05, weight_decay=decay, betas=(0.8, 0.95), eps=1e-6)
    for g in grads:
        p.grad[...] = g
        optimizer.step()
    wanted = adamw_rule(start.astype(np.float64), grads.astype(np.float64), 0.05, 0.8, 0.95, 1e-6, decay)
    assert error(p.value, wanted) < tolerance(dtype)


def make(kind, ps):
    return SGD(ps, 0.1, 0.9, True, 0.01) if kind == "sgd" else AdamW(ps, 0.1)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_equal_bits_and_strided_parameters(kind, rng, kernel):
    """Any number of workers gives equal bits; a parameter that is a view of something larger is changed."""
    start, grad = (rng.standard_normal((1500, 900)).astype(np.float32) for _ in range(2))
    results = []
    for n in (1, 2, 3):
        p = Parameter(start.copy())
        p.grad[...] = grad
        with workers(n):
            optimizer = make(kind, [p])
            optimizer.step()
            optimizer.step()
        results.append(p.value)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    whole = np.zeros((1500, 1800), np.float32)
    whole[:, ::2] = start
    p = Parameter(whole[:, ::2])
    p.grad[...] = grad
    optimizer = make(kind, [p])
    optimizer.step()
    optimizer.step()
    np.testing.assert_array_equal(whole[:, ::2], results[0])
    assert not whole[:, 1::2].any()


def test_tied_parameters_are_changed_once():
    """The same parameter listed twice takes one step."""
    p = Parameter(np.array([1.0]))
    p.grad[:] = 1
    SGD([p, p], 0.1).step()
    assert p.value[0] == 0.9


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_state_dict_goes_on(kind, rng):
    """A fresh optimizer with the saved state makes the same next steps."""
    a, b = Parameter(np.ones(4)), Parameter(np.ones(4))
    one = make(kind, [a])
    for _ in range(3):
        a.grad[...] = rng.standard_normal(4)
        one.step()
    b.value[...] = a.value
    two = make(kind, [b])
    two.load_state_dict(one.state_dict())
    a.grad[...] = b.grad[...] = rng.standard_normal(4)
    one.step(), two.step()
    np.testing.assert_array_equal(a.value, b.value)
    with pytest.raises((RangeError, ShapeError)):
        make(kind, [Parameter(np.ones(5))]).load_state_dict(one.state_dict())


def test_float16_parameters_have_masters():
    """A thousand steps too small for float16 add up."""
    p = Parameter(np.ones(1, np.float16))
    optimizer = SGD([p], 1e-5)
    for _ in range(1000):
        p.grad[:] = 1
        optimizer.step()
    assert p.value.dtype == np.float16 and p.value[0] == pytest.approx(0.99, abs=1e-3)


def test_a_schedule_is_called_with_the_steps_made():
    """The first step has number 0; the rate in force is readable."""
    p = Parameter(np.zeros(1))
    p.grad[:] = 1
    optimizer = SGD([p], lambda step: 10.0**-step)
    for _ in range(3):
        optimizer.step()
    assert p.value[0] == pytest.approx(-1.11) and optimizer.rate == pytest.approx(1e-3)


def test_clipping(rng):
    """The norm is that of all gradients together; below the limit nothing moves; NaN is left alone."""
    ps = [Parameter(np.zeros(3)), Parameter(np.zeros((2, 2), np.float32))]
    for p in ps:
        p.grad[...] = rng.standard_normal(p.grad.shape)
    norm = math.sqrt(sum((p.grad.astype(np.float64) ** 2).sum() for p in ps))
    assert gradient_norm(ps) == pytest.approx(norm, rel=1e-6)
    before = [p.grad.copy() for p in ps]
    assert clip_gradients([*ps, ps[0]], norm * 2) == pytest.approx(norm, rel=1e-6)
    np.testing.assert_array_equal(ps[0].grad, before[0])
    clip_gradients(ps, 0.5)
    assert gradient_norm(ps) == pytest.approx(0.5, rel=1e-6)
    ps[0].grad[0] = np.nan
    assert math.isnan(clip_gradients(ps, 0.5)) and ps[1].grad.any()
    with pytest.raises(RangeError, match="max_norm"):
        clip_gradients(ps, 0)


def test_schedules_at_their_joints():
    """Never 0 at the first step, the full rate at the end of the warm-up, flat after the end."""
    cosine = warmup_cosine(2.0, warmup=10, total=110, final=0.5)
    assert cosine(0) == 0.2 and cosine(9) == cosine(10) == 2.0
    assert cosine(60) == pytest.approx(1.25) and cosine(110) == cosine(10**6) == 0.5
    assert all(cosine(i) >= cosine(i + 1) for i in range(10, 200))
    assert warmup_cosine(1.0, warmup=0, total=5)(0) == 1.0
    assert linear_warmup(1.0, warmup=0)(0) == 1.0
    assert polynomial(1.0, total=10, power=2.0, final=0.1)(5) == pytest.approx(0.1 + 0.9 * 0.25)
    assert step_decay(1.0, every=10)(29) == pytest.approx(0.01)
    with pytest.raises(RangeError, match="total must be an integer of at least 6"):
        warmup_cosine(1.0, warmup=5, total=5)
    with pytest.raises(RangeError, match="maximum"):
        doubling(64, maximum=32)


def test_loss_scale():
    """Overflow halves and skips, good steps double, and the state goes on."""
    scale, p = LossScale(8.0, interval=2), Parameter(np.zeros(2))
    p.grad[:] = [np.inf, 1]
    assert not scale.unscale([p]) and scale.scale == 4.0 and scale.skipped == 1
    for _ in range(2):
        p.grad[:] = 4
        assert scale.unscale([p])
    assert scale.scale == 8.0 and p.grad.tolist() == [1, 1]
    other = LossScale()
    other.load_state_dict(scale.state_dict())
    assert other.state_dict() == scale.state_dict()
    with pytest.raises(RangeError, match="growth"):
        LossScale(growth=1.0)


def test_refusals():
    """Numbers out of range, and things that are not parameters."""
    p = Parameter(np.zeros(1))
    for options in ({"learning_rate": -1}, {"momentum": 1.0}, {"weight_decay": -0.1}, {"nesterov": True}):
        with pytest.raises(RangeError, match=next(iter(options))):
            SGD([p], **{"learning_rate": 0.1, **options})
    with pytest.raises(RangeError, match=r"betas\[1\]"):
        AdamW([p], betas=(0.9, 1.0))
    with pytest.raises(DtypeError, match="Parameter objects, got ndarray"):
        SGD([np.zeros(1)], 0.1)
    with pytest.raises(DtypeError, match=r"got one Parameter; of a model give model.parameters\(\)"):
        SGD(p, 0.1)
