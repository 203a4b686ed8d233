"""Independent references: plain formulas, in float64 or complex128, with nothing in common with the package.

`slope` differentiates them by the complex step, which is exact to rounding: f(x + ih) = f(x) + ih·f'(x).
"""

from __future__ import annotations

import math

import numpy as np

H = 1e-200


def error(got, wanted) -> float:
    """The largest difference, as a share of the largest value wanted."""
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    assert got.shape == wanted.shape, (got.shape, wanted.shape)
    if wanted.size == 0:
        return 0.0
    scale = np.abs(wanted).max()
    return float(np.abs(got - wanted).max() / (scale if scale else 1.0))


def tolerance(dtype, single: float = 2e-6) -> float:
    return {2: 2e-3, 4: single, 8: 1e-12}[np.dtype(dtype).itemsize]


def slope(function, x, dy=None):
    """The gradient of sum(function(x)·dy) with respect to x."""
    x = np.asarray(x, np.complex128)
    result = np.empty(x.shape)
    flat, out = x.reshape(-1), result.reshape(-1)
    for i in range(flat.size):
        before = flat[i]
        flat[i] = before + 1j * H
        y = np.asarray(function(x))
        out[i] = (y.imag * (1.0 if dy is None else dy)).sum() / H
        flat[i] = before
    return result


def maximum(x, axis):
    """The maximum by the real part: what is subtracted for safety must not be differentiated."""
    return x.real.max(axis=axis, keepdims=True)


def relu(x):
    return np.where(x.real > 0, x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def log_sigmoid(x):
    # For a small exp(-x), log(1 + e) loses digits; atanh does not: log1p(e) = 2·atanh(e / (2 + e)).
    e = np.exp(-np.sign(x.real) * x)
    return np.where(x.real > 0, 0, x) - 2 * np.arctanh(e / (2 + e))


def gelu(x):
    if np.iscomplexobj(x):
        # erf by its derivative: one step of the complex step rule is exact because h² vanishes.
        inner = np.vectorize(math.erf)(x.real / math.sqrt(2))
        density = np.exp(-(x.real**2) / 2) / math.sqrt(2 * math.pi)
        return x * (0.5 * (1 + inner) + 1j * density * x.imag)
    return x * np.vectorize(lambda v: 0.5 * math.erfc(-v / math.sqrt(2)))(x)


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def softmax(x, axis=-1):
    e = np.exp(x - maximum(x, axis))
    return e / e.sum(axis=axis, keepdims=True)


def log_softmax(x, axis=-1):
    shifted = x - maximum(x, axis)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def cross_entropy(x, targets, weight=None, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
    n, classes = x.shape
    w = np.ones(classes) if weight is None else np.asarray(weight, np.float64)
    logp = log_softmax(x)
    if targets.dtype.kind == "f":
        q = targets.astype(np.float64) * (1 - label_smoothing) + label_smoothing / classes
        losses, divisor = -(q * w * logp).sum(axis=1), n
    else:
        losses, divisor = [], 0.0
        for row, y in zip(logp, targets):
            if y == ignore_index:
                losses.append(0.0)
                continue
            smooth = -(w * row).sum() * label_smoothing / classes
            losses.append(-(1 - label_smoothing) * w[y] * row[y] + smooth)
            divisor += w[y]
        losses = np.array(losses)
    if reduction == "none":
        return losses
    return losses.sum() / (divisor if reduction == "mean" else 1)
