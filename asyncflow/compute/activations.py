"""Activations that work number by number, each with its backward beside it.

A backward takes `dy`, the gradient of the loss with respect to the activation's result, and returns the
gradient with respect to its input. Those whose slope follows from the result (relu, sigmoid, tanh) take the
result `y`; the others take the input `x`. Every function keeps shape and dtype, takes any strides,
computes float16 in float32, and leaves its inputs untouched unless they are given as `out`.

NaN comes through. Infinities give the limit. An empty array gives an empty array. Complex, integer and
boolean arrays raise DtypeError, shapes that differ raise ShapeError.
"""

from __future__ import annotations

import math

import numpy as np

from asyncflow.compute.checks import Array, cast, floating, one_of, same_shape
from asyncflow.compute.erf import normal_cdf
from asyncflow.compute.layout import Tile, map_elements, zero_where
from asyncflow.compute.scratch import scratch_like
from asyncflow.compute.settings import pick


def relu(x: Array, *, out: Array | None = None) -> Array:
    """max(x, 0).

    Args:
        x: Floating, any shape.
        out: Array of x's shape and dtype to write into; may be x itself.

    Example:
        >>> relu(np.array([-1.0, 2.0]))
        array([0., 2.])
    """
    return map_elements(_relu, (floating("x", x),), out)


def _relu(x: Array, out: Array) -> None:
    # Four times faster than maximum, whose loop with a constant is not vectorised.
    x.clip(0, np.inf, out=out)


def relu_backward(y: Array, dy: Array, *, out: Array | None = None) -> Array:
    """The gradient of relu from its result: dy where y > 0, else 0 (the slope at 0 is 0, as in PyTorch)."""
    return _backward(_relu_backward, "y", y, dy, out)


def _relu_backward(y: Array, dy: Array, out: Array) -> None:
    zero_where(y <= 0, dy, out)


def sigmoid(x: Array, *, out: Array | None = None) -> Array:
    """1 / (1 + exp(-x)).

    The relative error is a few units in the last place wherever the result is a normal number, without
    clipping: exp(-x) may overflow to infinity, whose reciprocal is the right 0. Below about -88 (float32) or
    -709 (float64), where the result would be subnormal, it may be 0.

    Example:
        >>> sigmoid(np.array([0.0, -700.0]))
        array([5.00000000e-001, 9.85967654e-305])

    Source:
        Goodfellow, Bengio and Courville, Deep Learning (2016), section 3.10.
    """
    return map_elements(pick("sigmoid", _sigmoid), (floating("x", x),), out)


def _sigmoid(x: Array, out: Array) -> None:
    # e / (1 + e) is one pass less than 1 / (1 + exp(-x)). Where e is infinite it is NaN, and says so.
    met: list[str] = []
    powers = np.exp(x, out=out)
    below = np.add(powers, 1, out=scratch_like(x))
    with np.errstate(invalid="call", call=lambda what, _: met.append(what)):
        np.divide(powers, below, out=out)
    if met:
        np.copyto(out, 1, where=np.isposinf(below))


def sigmoid_backward(y: Array, dy: Array, *, out: Array | None = None) -> Array:
    """The gradient of sigmoid from its result: dy·y·(1 - y)."""
    return _backward(_sigmoid_backward, "y", y, dy, out)


def _sigmoid_backward(y: Array, dy: Array, out: Array) -> None:
    slope = np.subtract(1, y, out=scratch_like(y))
    slope *= y
    np.multiply(slope, dy, out=out)


def log_sigmoid(x: Array, *, out: Array | None = None) -> Array:
    """log(sigmoid(x)) = min(x, 0) - log1p(exp(-|x|)), right where sigmoid itself is 0 or 1.

    Example:
        >>> log_sigmoid(np.array([-800.0, 40.0]))
        array([-8.00000000e+02, -4.24835426e-18])
    """
    return map_elements(_log_sigmoid, (floating("x", x),), out)


def _log_sigmoid(x: Array, out: Array) -> None:
    rest = np.abs(x, out=scratch_like(x))
    np.negative(rest, out=rest)
    np.exp(rest, out=rest)
    np.log1p(rest, out=rest)
    np.minimum(x, 0, out=out)
    np.subtract(out, rest, out=out)


def log_sigmoid_backward(x: Array, dy: Array, *, out: Array | None = None) -> Array:
    """The gradient of log_sigmoid from its input: dy·sigmoid(-x)."""
    return _backward(_log_sigmoid_backward, "x", x, dy, out)


def _log_sigmoid_backward(x: Array, dy: Array, out: Array) -> None:
    slope = np.exp(x, out=scratch_like(x))
    slope += 1
    np.divide(1, slope, out=slope)
    np.multiply(slope, dy, out=out)


def tanh(x: Array, *, out: Array | None = None) -> Array:
    """The hyperbolic tangent.

    Example:
        >>> tanh(np.array([0.0, np.inf]))
        array([0., 1.])
    """
    return map_elements(_tanh, (floating("x", x),), out)


def _tanh(x: Array, out: Array) -> None:
    np.tanh(x, out=out)


def tanh_backward(y: Array, dy: Array, *, out: Array | None = None) -> Array:
    """The gradient of tanh from its result: dy·(1 - y²)."""
    return _backward(_tanh_backward, "y", y, dy, out)


def _tanh_backward(y: Array, dy: Array, out: Array) -> None:
    slope = np.square(y, out=scratch_like(y))
    np.subtract(1, slope, out=slope)
    np.multiply(slope, dy, out=out)


def gelu(x: Array, *, approximate: str = "none", out: Array | None = None) -> Array:
    """x·Φ(x), Φ the distribution function of the standard normal.

    Args:
        x: Floating, any shape.
        approximate: `"none"` for Φ itself, `"tanh"` for the formula that GPT-2 was trained with.
        out: Array of x's shape and dtype to write into; may be x itself.

    Raises:
        RangeError: If approximate is another word.

    Example:
        >>> gelu(np.array([-1.0, 0.0, 1.0])).round(4)
        array([-0.1587,  0.    ,  0.8413])

    Source:
        Hendrycks and Gimpel, Gaussian Error Linear Units, arXiv 1606.08415.
    """
    one_of("approximate", approximate, ("none", "tanh"))
    return map_elements(_gelu if approximate == "none" else _gelu_tanh, (floating("x", x),), out)


def _gelu(x: Array, out: Array) -> None:
    # -inf · 0 would be NaN; the limit is 0.
    share = normal_cdf(x)
    np.multiply(np.maximum(x, -100), share, out=out)


def gelu_backward(x: Array, dy: Array, *, approximate: str = "none", out: Array | None = None) -> Array:
    """The gradient of gelu from its input: dy·(Φ(x) + x·φ(x)), or that of the tanh formula."""
    one_of("approximate", approximate, ("none", "tanh"))
    return _backward(_gelu_backward if approximate == "none" else _gelu_tanh_backward, "x", x, dy, out)


def _gelu_backward(x: Array, dy: Array, out: Array) -> None:
    near = np.clip(x, -100, 100)
    density = np.exp(near * near * x.dtype.type(-0.5)) * x.dtype.type(1 / math.sqrt(2 * math.pi))
    np.multiply(normal_cdf(x) + near * density, dy, out=out)


_ROOT, _CUBE = math.sqrt(2 / math.pi), 0.044715


def _gelu_tanh(x: Array, out: Array) -> None:
    near = np.maximum(x, -100)
    np.multiply(near, 1 / (1 + np.exp(-2 * _tanh_argument(near))), out=out)


def _tanh_argument(x: Array) -> Array:
    return np.asarray(x.dtype.type(_ROOT) * (x + x.dtype.type(_CUBE) * x * x * x))


def _gelu_tanh_backward(x: Array, dy: Array, out: Array) -> None:
    near = np.clip(x, -100, 100)
    # (1 + tanh u) / 2 is sigmoid(2u), which keeps its relative accuracy where tanh is nearly -1.
    share = 1 / (1 + np.exp(-2 * _tanh_argument(near)))
    inner = x.dtype.type(_ROOT) * (1 + x.dtype.type(3 * _CUBE) * near * near)
    np.multiply(share + 2 * near * share * (1 - share) * inner, dy, out=out)


def _backward(tile: Tile, name: str, x: Array, dy: Array, out: Array | None) -> Array:
    x, dy = floating(name, x), floating("dy", dy)
    same_shape("dy", dy, name, x)
    return map_elements(tile, (x, cast(dy, x.dtype)), out)
