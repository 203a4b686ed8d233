# mypy: ignore-errors
"""softmax, log_softmax, sigmoid and cross-entropy, row by row.

The largest entry is left out of the sum by its value and not by its place: entries of exp(0) = 1 are counted,
and one of them is taken off. A NaN is not equal to 1 and stays in the sum.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numba.extending import register_jitable

from asyncflow.compute import class_losses, softmaxes
from asyncflow.compute.activations import _sigmoid
from asyncflow.compute.numba_kernels.exp import (
    OPTIONS,
    SUMS,
    exp32,
    exp64,
    exp_into32,
    exp_into64,
    float32,
    float64,
    largest,
    row_sum,
)

MASK32, MASK64 = np.int32(0x7FFFFFFF), np.int64(0x7FFFFFFFFFFFFFFF)


@register_jitable
def maximum32(bits):
    """The largest number of a row of float32, given as int32."""
    return float32(largest(bits, MASK32))


@register_jitable
def maximum64(bits):
    """The largest number of a row of float64, given as int64."""
    return float64(largest(bits, MASK64))


@njit(**OPTIONS)
def scale_row(x, factor):
    """x *= factor."""
    for j in range(x.shape[0]):
        x[j] *= factor


@njit(**SUMS)
def ones_and_rest(e):
    """How many entries of a row of exp(x - max) are 1, and the sum of the rest."""
    total, tops = e.dtype.type(0), e.dtype.type(0)
    one = e.dtype.type(1)
    for j in range(e.shape[0]):
        # Products and not a choice: a choice is not vectorised here, and 26 times slower.
        top = e.dtype.type(e[j] == one)
        total += e[j] * (one - top)
        tops += top
    return tops, total


@njit(**OPTIONS)
def others_sum(e):
    """The sum of a row of exp(x - max) without one of its ones; not where sums may be reordered."""
    tops, total = ones_and_rest(e)
    return total + (tops - e.dtype.type(1))


@njit(**OPTIONS)
def sigmoid_into32(x, out):
    """out = 1 / (1 + exp(-x))."""
    for j in range(x.shape[0]):
        out[j] = np.float32(1) / (np.float32(1) + exp32(-x[j]))


@njit(**OPTIONS)
def sigmoid_into64(x, out):
    """out = 1 / (1 + exp(-x))."""
    for j in range(x.shape[0]):
        out[j] = 1.0 / (1.0 + exp64(-x[j]))


def _softmax_loop(maximum, exp_into):
    @njit(**OPTIONS)
    def loop(x, bits, out):
        for i in range(x.shape[0]):
            exp_into(x[i], maximum(bits[i]), out[i])
            scale_row(out[i], x.dtype.type(1) / row_sum(out[i]))

    return loop


@njit(**OPTIONS)
def shift_row(x, first, second, out):
    """out = (x - first) - second."""
    for j in range(x.shape[0]):
        out[j] = (x[j] - first) - second


def _log_softmax_loop(maximum, exp_into):
    @njit(**OPTIONS)
    def loop(x, bits, out):
        for i in range(x.shape[0]):
            top = maximum(bits[i])
            exp_into(x[i], top, out[i])
            rest = x.dtype.type(math.log1p(others_sum(out[i])))
            shift_row(x[i], top, rest, out[i])

    return loop


def _cross_entropy_loop(maximum, exp_into):
    @njit(**OPTIONS)
    def loop(x, bits, index, row_weight, scale, out, losses):
        for i in range(x.shape[0]):
            weight, y = row_weight[i], index[i]
            if weight == 0:
                losses[i] = 0
                for j in range(x.shape[1]):
                    out[i, j] = 0
                continue
            top = maximum(bits[i])
            exp_into(x[i], top, out[i])
            others = others_sum(out[i])
            whole = x.dtype.type(1) + others
            own = out[i, y]
            losses[i] = weight * (math.log1p(others) - (x[i, y] - top))
            rest = others if own == 1 else whole - own
            factor = x.dtype.type(weight * scale / whole)
            scale_row(out[i], factor)
            out[i, y] = -rest * factor

    return loop


_LOOPS = {
    np.dtype(np.float32): (
        np.int32,
        _softmax_loop(maximum32, exp_into32),
        _log_softmax_loop(maximum32, exp_into32),
        _cross_entropy_loop(maximum32, exp_into32),
        sigmoid_into32,
    ),
    np.dtype(np.float64): (
        np.int64,
        _softmax_loop(maximum64, exp_into64),
        _log_softmax_loop(maximum64, exp_into64),
        _cross_entropy_loop(maximum64, exp_into64),
        sigmoid_into64,
    ),
}


def softmax(x, out):
    """As `softmaxes._softmax`."""
    if x.dtype not in _LOOPS:
        return softmaxes._softmax(x, out)
    bits, loop, *_ = _LOOPS[x.dtype]
    loop(x, x.view(bits), out)


def log_softmax(x, out):
    """As `softmaxes._log_softmax`."""
    if x.dtype not in _LOOPS:
        return softmaxes._log_softmax(x, out)
    bits, _, loop, *_ = _LOOPS[x.dtype]
    loop(x, x.view(bits), out)


def cross_entropy(x, index, row_weight, scale, out, losses):
    """As `class_losses._plain_tile`."""
    if x.dtype not in _LOOPS:
        return class_losses._plain_tile(x, index, row_weight, scale, out, losses)
    bits, _, _, loop, _ = _LOOPS[x.dtype]
    loop(x, x.view(bits), index, row_weight, scale, out, losses)


def sigmoid(x, out):
    """As `activations._sigmoid`."""
    if x.dtype not in _LOOPS:
        return _sigmoid(x, out)
    _LOOPS[x.dtype][4](x, out)


KERNELS: dict[str, Any] = {
    "softmax": softmax,
    "log_softmax": log_softmax,
    "cross_entropy": cross_entropy,
    "sigmoid": sigmoid,
}
