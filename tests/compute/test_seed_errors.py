"""The 31 errors in the lesson's code, each by its number: what is right instead.

The numbers are those of the list in docs/howto/from-the-seed.md.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest

from asyncflow import compute
from asyncflow.compute import (
    SGD,
    BatchNorm,
    DataLoader,
    Linear,
    LossScale,
    Parameter,
    ReLU,
    Sequential,
    Softmax,
    Trainer,
    attention,
    cross_entropy,
    cross_entropy_with_grad,
    mse_loss,
    mse_loss_with_grad,
    nll_loss,
    sigmoid,
    softmax,
)
from asyncflow.errors import DtypeError, RangeError, ShapeError

ROOT = Path(__file__).resolve().parents[2]


def qkv(rng, tokens=7, keys=7):
    shapes = (2, tokens, 4), (2, keys, 4), (2, keys, 4)
    return [rng.standard_normal(s) for s in shapes]


def network(rng, **options):
    return Sequential(Linear(3, 8, rng=rng, **options), ReLU(), Linear(8, 4, rng=rng, **options))


def test_01_keys_are_transposed_by_their_last_axes(rng):
    """`K.transpose(-2, -1)` raised; scores are q·kᵀ per batch entry."""
    q, k, v = qkv(rng)
    wanted = softmax(q @ k.swapaxes(-1, -2) / 2) @ v
    np.testing.assert_allclose(attention(q, k, v), wanted, rtol=1e-12)


def test_02_attention_sums_to_one_over_keys_for_any_chunk(rng):
    """The softmax ran over the queries of a chunk; here a constant value comes back, whatever the chunk."""
    q, k, _ = qkv(rng)
    for chunk in (1, 2, 7, None):
        np.testing.assert_allclose(attention(q, k, np.full((2, 7, 4), 3.0), chunk_size=chunk), 3, rtol=1e-14)


def test_03_evaluation_works():
    """`training = False` ended in UnboundLocalError; here it uses the running statistics."""
    y, _ = BatchNorm(2, dtype=np.float64).forward(np.ones((1, 2)), training=False)
    np.testing.assert_allclose(y, 1 / np.sqrt(1 + 1e-5))


def test_04_backward_after_evaluation_takes_statistics_as_constants(rng):
    """dx is dy·gamma / sqrt(running_var + eps), without terms for mean and variance."""
    layer, dy = BatchNorm(2, dtype=np.float64), rng.standard_normal((5, 2))
    _, ctx = layer.forward(rng.standard_normal((5, 2)), training=False)
    np.testing.assert_allclose(layer.backward(ctx, dy), dy / np.sqrt(1 + 1e-5), rtol=1e-14)


def test_05_the_loss_takes_logits_and_its_gradient_is_for_logits(rng):
    """(p - onehot)/n was applied to probabilities; a model that ends in softmax has its own loss here."""
    x, y = rng.standard_normal((6, 3)), rng.integers(0, 3, 6)
    loss, grad = cross_entropy_with_grad(x, y)
    np.testing.assert_allclose(grad, (softmax(x) - np.eye(3)[y]) / 6, atol=1e-15)
    p, ctx = Softmax().forward(x, training=True)
    dp = np.where(np.eye(3)[y] == 1, -1 / p, 0) / 6
    np.testing.assert_allclose(Softmax().backward(ctx, dp), grad, atol=1e-15)
    assert loss == pytest.approx(nll_loss(np.log(p), y), rel=1e-14)


def test_06_no_epsilon_in_the_logarithm():
    """-log(p + 1e-8) stops at 18.4 and is negative for p = 1; 40 nats are 40, certainty costs 0."""
    assert cross_entropy(np.array([[0.0, 40.0]]), np.array([0])) == pytest.approx(40, rel=1e-15)
    assert cross_entropy(np.array([[800.0, 0.0]]), np.array([0])) == 0.0
    assert np.isfinite(cross_entropy(np.array([[-20.0, 20.0]], np.float16), np.array([0])))


def test_07_the_mean_loss_is_over_samples(rng):
    """Batches of 32, 32, 32 and 1: each sample counts once, and not the last as much as 32."""
    x = np.zeros((97, 1))
    t = np.concatenate([np.ones(96), [5.0**0.5]])[:, None]
    model = Sequential(Linear(1, 1, rng=rng, dtype=np.float64))
    model.layers[0].bias.value[:] = 0
    run = Trainer(model, mse_loss_with_grad, SGD(model.parameters(), 0.0))
    assert run.train_epoch(DataLoader(x, t, batch_size=32)) == pytest.approx((96 + 5) / 97)


@pytest.mark.parametrize("accumulate", [2, 3])
def test_08_09_accumulated_gradients_are_those_of_the_large_batch(accumulate, rng):
    """Micro-batches of 4, 4 and 2 weigh by their samples; a last group that is not full makes its step."""
    x, y = rng.standard_normal((10, 3)), rng.integers(0, 4, 10)
    small, large = (network(np.random.default_rng(0), dtype=np.float64) for _ in range(2))
    optimizer = SGD(small.parameters(), 0.1)
    run = Trainer(small, cross_entropy_with_grad, optimizer, accumulate=accumulate)
    run.train_epoch(DataLoader(x, y, batch_size=4))
    whole = Trainer(large, cross_entropy_with_grad, SGD(large.parameters(), 0.1))
    for group in ([slice(0, 8), slice(8, 10)], [slice(0, 10)])[accumulate - 2]:
        whole.train_epoch(DataLoader(x[group], y[group], batch_size=10))
    assert optimizer.steps == (2 if accumulate == 2 else 1)
    for p, q in zip(small.parameters(), large.parameters(), strict=True):
        np.testing.assert_allclose(p.value, q.value, rtol=1e-13)


def test_10_backward_adds_into_the_gradient(rng):
    """The seed's BatchNorm overwrote dgamma; two backwards are twice the gradient, until zero_grad."""
    layer, x = BatchNorm(2), rng.standard_normal((5, 2)).astype(np.float32)
    for times in (1, 2):
        _, ctx = layer.forward(x, training=True)
        layer.backward(ctx, np.ones((5, 2), np.float32))
        np.testing.assert_allclose(layer.beta.grad, 5.0 * times)
    layer.beta.zero_grad()
    assert not layer.beta.grad.any()


def test_11_updates_reach_the_array_or_are_refused():
    """`param -= lr*grad` did nothing for numbers and copies, and updated a tied parameter twice."""
    for wrong in (3.0, np.float64(3), np.zeros(3, int)):
        with pytest.raises(DtypeError, match="floating NumPy array"):
            Parameter(wrong)
    p = Parameter(np.ones(2))
    p.grad[:] = 1
    SGD([p, p], 0.25).step()
    np.testing.assert_array_equal(p.value, 0.75)


@pytest.mark.parametrize(
    ("targets", "error"),
    [([0, -1], RangeError), ([0, 3], RangeError), ([[0], [1]], ShapeError), ([0.0, 1.0], ShapeError)],
)
def test_12_targets_are_checked(targets, error):
    """-1 took the last class and (n, 1) became n by n; -100 is ignored and not an IndexError."""
    x = np.zeros((2, 3))
    with pytest.raises(error, match="targets"):
        cross_entropy(x, np.array(targets))
    assert cross_entropy(x, np.array([0, -100])) == pytest.approx(np.log(3))


def test_13_squared_error_neither_broadcasts_nor_wraps():
    """(n, 1) against (n,) gave n² terms, uint8 wrapped round, float16 overflowed at 256."""
    with pytest.raises(ShapeError, match="target"):
        mse_loss(np.zeros((4, 1)), np.zeros(4))
    assert mse_loss(np.zeros(2), np.array([1, 255], np.uint8)) == pytest.approx((1 + 255**2) / 2)
    assert mse_loss(np.zeros(2, np.float16), np.full(2, 300, np.float16)) == 90000


@pytest.mark.parametrize(("shape", "axis"), [((2, 3, 4, 5), 1), ((2, 4, 5, 3), -1)])
def test_14_images_are_normalised_per_channel(shape, axis, rng):
    """Statistics of shape (channels,), in PyTorch's and in TensorFlow's order of axes."""
    layer = BatchNorm(3, channel_axis=axis, dtype=np.float64)
    y, _ = layer.forward(rng.standard_normal(shape) + 7, training=True)
    assert layer.running_mean.shape == (3,)
    others = tuple(i for i in range(4) if i != axis % 4)
    np.testing.assert_allclose(y.mean(axis=others), 0, atol=1e-14)


def test_15_16_sigmoid_and_its_logarithm_need_no_clip():
    """Clipping at 500 warned in float32 and made everything below one number in float64."""
    with np.errstate(all="raise"):
        assert sigmoid(np.array([-600.0]))[0] == pytest.approx(np.exp(-600.0), rel=1e-14)
        assert sigmoid(np.array([-500.0, 500.0], np.float32)).tolist() == [0, 1]
    assert compute.log_sigmoid(np.array([-800.0]))[0] == -800
    assert compute.binary_cross_entropy(np.array([-800.0]), np.array([1])) == 800


def test_17_rows_without_a_finite_maximum_and_odd_shapes_are_defined():
    """All -inf and +inf are NaN in softmax and zeros in attention; no classes are no numbers; 1-D works."""
    assert np.isnan(softmax(np.array([[-np.inf, -np.inf], [np.inf, 0]]))).all()
    assert not attention(np.ones((1, 2)), np.ones((1, 2)), np.ones((1, 2)), mask=np.array([[False]])).any()
    assert softmax(np.zeros((2, 0))).shape == (2, 0) and softmax(np.zeros(4)).tolist() == [0.25] * 4
    with pytest.raises(DtypeError, match="floating"):
        softmax(np.zeros(3, int))


def test_18_log_softmax_subtracts_the_maximum_first():
    """At 1e8 in float32, log 3000 = 8.0064 would be rounded to 8 if it were added to the maximum."""
    assert compute.log_softmax(np.full(3000, 1e8, np.float32))[0] == pytest.approx(-np.log(3000), rel=1e-7)


def test_19_confident_rows_keep_their_relative_accuracy():
    """[20, 0, 0] in float32 costs 4.12e-9 and pulls with -4.12e-9; the plain formula gives 0 twice."""
    loss, grad = cross_entropy_with_grad(np.array([[20, 0, 0]], np.float32), np.array([0]))
    assert loss == pytest.approx(4.1223072e-09, rel=1e-6)
    assert grad[0, 0] == pytest.approx(-4.1223072e-09, rel=1e-6)


def test_20_21_column_statistics_of_a_million_float32_rows(rng):
    """NumPy's sum down a column is 1 % wrong there, and E[x²] - E[x]² would leave nothing of the variance."""
    x = (100 + rng.random((1 << 20, 1))).astype(np.float32)
    mean, var = np.zeros(1, np.float32), np.zeros(1, np.float32)
    compute.batch_norm_forward(x, None, None, mean, var, training=True, momentum=1.0)
    assert mean[0] == pytest.approx(x.mean(dtype=np.float64), rel=1e-6)
    assert var[0] == pytest.approx(x.var(dtype=np.float64), rel=1e-5)


def test_22_the_running_variance_is_unbiased_and_one_row_is_refused():
    """n / (n - 1), a third at four rows; a batch of one has no variance, where the seed returned zeros."""
    var = np.zeros(1)
    compute.batch_norm_forward(
        np.arange(4.0)[:, None], None, None, np.zeros(1), var, training=True, momentum=1.0
    )
    assert var[0] == pytest.approx(np.var(np.arange(4), ddof=1))
    with pytest.raises(RangeError, match="at least two"):
        BatchNorm(1).forward(np.zeros((1, 1), np.float32), training=True)


def test_23_momentum_weighs_the_new_batch():
    """0.1 here is the seed's 0.9, and None averages all batches."""
    mean = np.zeros(1)
    compute.batch_norm_forward(np.full((2, 1), 10.0), None, None, mean, None, training=True, momentum=0.1)
    assert mean[0] == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_24_the_dtype_stays(dtype, rng):
    """float64 parameters made float32 activations twice as large."""
    y, _ = BatchNorm(2, dtype=dtype).forward(rng.standard_normal((4, 2)).astype(dtype), training=True)
    assert y.dtype == dtype


def test_25_batch_norm_under_accumulation_says_what_it_does():
    """Each small batch is normalised by itself: not the large batch, and the docstring says so."""
    assert "Under gradient accumulation each small batch is normalised by itself" in BatchNorm.__doc__


def test_26_27_float16_is_computed_in_float32(rng):
    """A product whose sums pass 65504 on the way comes out right, and gradients are kept in float32."""
    layer = Linear(4096, 1, rng=rng, dtype=np.float16)
    layer.weight.value[:] = np.where(np.arange(4096) < 2048, 40, -40)
    y, ctx = layer.forward(np.full((1, 4096), 40, np.float16), training=True)
    assert y[0, 0] == layer.bias.value[0]
    assert layer.weight.grad.dtype == np.float32


def test_28_the_scale_is_that_of_a_head(rng):
    """1 / sqrt of the last axis, or what is asked; memory does not grow with chunk · tokens."""
    q, k, v = qkv(rng)
    np.testing.assert_allclose(attention(q, k, v, scale=0.5), attention(q, k, v))
    assert not np.allclose(attention(q, k, v, scale=1.0), attention(q, k, v))


def test_29_both_causal_alignments(rng):
    """With more keys than queries: the first query sees one key, or the last query sees all of them."""
    q, k, v = qkv(rng, tokens=2, keys=5)
    np.testing.assert_allclose(attention(q, k, v, causal="top_left")[:, 0], v[:, 0])
    np.testing.assert_allclose(attention(q, k, v, causal="bottom_right")[:, 1], attention(q, k, v)[:, 1])


def test_30_a_hidden_row_is_zeros_and_not_a_mean(rng):
    """A large negative number instead of -inf made a fully masked row the mean of the values."""
    q, k, v = qkv(rng)
    assert not attention(q, k, v, mask=np.full((7, 7), -np.inf)).any()


def test_31_small_gradients_survive_float16(rng):
    """Gradients below 6e-8 vanish in float16: they are added in float32, under a loss scale."""
    p = Parameter(np.zeros(1, np.float16))
    for _ in range(3):
        p.add_grad(np.array([1e-9], np.float32))
    assert p.grad[0] == pytest.approx(3e-9)
    p.grad[:] *= 65536
    assert LossScale().unscale([p]) and p.grad[0] == pytest.approx(3e-9)


def test_the_layer_keeps_nothing_of_a_call(rng):
    """`self.cache` mixed up two forwards: here each backward takes the context of its own."""
    layer = BatchNorm(3, dtype=np.float64)
    a, b, dy = (rng.standard_normal((4, 3)) for _ in range(3))
    alone = layer.backward(layer.forward(a, training=True)[1], dy)
    _, ctx = layer.forward(a, training=True)
    layer.forward(b, training=True)
    np.testing.assert_array_equal(layer.backward(ctx, dy), alone)


def test_the_loader_does_not_touch_the_global_generator():
    """Order follows from (seed, epoch); bad sizes and lengths are refused; lists and `async for` work."""
    before = np.random.get_state()[1].copy()
    first = [b.tolist() for b in DataLoader([1, 2, 3, 4], batch_size=3, shuffle=True, seed=5)]

    async def again():
        return [b.tolist() async for b in DataLoader([1, 2, 3, 4], batch_size=3, shuffle=True, seed=5)]

    assert asyncio.run(again()) == first
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    with pytest.raises(RangeError, match="batch_size"):
        DataLoader([1, 2], batch_size=0)
    with pytest.raises(ShapeError, match="y must have as many samples as X"):
        DataLoader([1, 2], [1])


def test_every_number_has_its_line_on_the_page():
    """docs/howto/from-the-seed.md lists the numbers 1 to 31, and each has a test here."""
    page = (ROOT / "docs/howto/from-the-seed.md").read_text(encoding="utf-8")
    listed = {int(n) for n in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    tested = {int(n) for name in globals() for n in re.findall(r"_(\d\d)(?=_)", name)}
    assert listed == tested == set(range(1, 32))
