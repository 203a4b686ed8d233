"""scratch: a buffer per thread and slot, whose contents never reach a result."""

from __future__ import annotations

import threading

import numpy as np

from asyncflow import compute
from asyncflow.compute.scratch import LARGEST, scratch


def test_a_buffer_per_thread_and_slot():
    """The same thread and slot share memory; others do not; large requests are their own."""
    f = np.dtype(np.float32)
    a, b, other = scratch((10, 10), f), scratch((5, 7), np.dtype(np.float64)), scratch((10, 10), f, 1)
    assert np.shares_memory(a, b) and not np.shares_memory(a, other)
    elsewhere = []
    thread = threading.Thread(target=lambda: elsewhere.append(scratch((10, 10), f)))
    thread.start()
    thread.join()
    assert not np.shares_memory(a, elsewhere[0])
    size = LARGEST // 4 + 1
    assert not np.shares_memory(scratch((size,), f), scratch((size,), f))


def test_results_are_not_scratch(rng):
    """A result of one call is not changed by the next."""
    x = rng.standard_normal((300, 40))
    y = rng.integers(0, 40, 300)
    calls = [
        compute.log_softmax, compute.log_sigmoid, lambda x: compute.tanh_backward(x, x),
        lambda x: compute.softmax_backward(x, x), lambda x: compute.cross_entropy(x, y, reduction="none"),
        lambda x: compute.mse_loss(x, x * 2, reduction="none"),
        lambda x: compute.huber_loss_with_grad(x, -x)[1],
        lambda x: compute.dropout_forward(x, 0.5, key=(1,))[0], lambda x: compute.attention(x, x, x),
        lambda x: compute.batch_norm_forward(x, None, None, None, None, training=True)[0],
        lambda x: compute.layer_norm_backward(compute.layer_norm_forward(x, None, None)[1], x)[0],
    ]  # fmt: skip
    first = [call(x) for call in calls]
    kept = [result.copy() for result in first]
    for call in calls:
        call(x[::-1] * 3)
    for result, copy in zip(first, kept):
        np.testing.assert_array_equal(result, copy)
