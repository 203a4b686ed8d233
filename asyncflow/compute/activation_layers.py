"""Activations as layers, without parameters. Their context is the array that the backward needs."""

from __future__ import annotations

from collections.abc import Callable

from asyncflow.compute import activations, softmaxes
from asyncflow.compute.checks import Array
from asyncflow.compute.parameter import Parameter


class _Activation:
    """A function and its backward; `from_result` says which array the backward takes."""

    function: Callable[..., Array]
    slope: Callable[..., Array]
    from_result = True

    def forward(self, x: Array, *, training: bool = False) -> tuple[Array, Array]:
        """The result and the context."""
        y = type(self).function(x)
        return y, (y if self.from_result else x)

    def backward(self, ctx: Array, dy: Array) -> Array:
        """The gradient of the input."""
        return type(self).slope(ctx, dy)

    def parameters(self) -> list[Parameter]:
        """None."""
        return []

    def arrays(self) -> dict[str, Array]:
        """None."""
        return {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class ReLU(_Activation):
    """max(x, 0)."""

    function, slope = staticmethod(activations.relu), staticmethod(activations.relu_backward)


class Sigmoid(_Activation):
    """1 / (1 + exp(-x)). Before a binary cross-entropy leave it out: that loss takes logits."""

    function, slope = staticmethod(activations.sigmoid), staticmethod(activations.sigmoid_backward)


class Tanh(_Activation):
    """The hyperbolic tangent."""

    function, slope = staticmethod(activations.tanh), staticmethod(activations.tanh_backward)


class GELU(_Activation):
    """x·Φ(x)."""

    function, slope = staticmethod(activations.gelu), staticmethod(activations.gelu_backward)
    from_result = False


class Softmax(_Activation):
    """softmax over the last axis. Before `cross_entropy` leave it out: that loss takes logits."""

    function, slope = staticmethod(softmaxes.softmax), staticmethod(softmaxes.softmax_backward)


class LogSoftmax(_Activation):
    """log_softmax over the last axis, for `nll_loss`."""

    function, slope = staticmethod(softmaxes.log_softmax), staticmethod(softmaxes.log_softmax_backward)


class Flatten:
    """(n, …) to (n, product of the rest)."""

    def forward(self, x: Array, *, training: bool = False) -> tuple[Array, tuple[int, ...]]:
        """The same numbers as rows; the context is the shape."""
        return x.reshape(len(x), -1), x.shape

    def backward(self, ctx: tuple[int, ...], dy: Array) -> Array:
        """dy in the input's shape."""
        return dy.reshape(ctx)

    def parameters(self) -> list[Parameter]:
        """None."""
        return []

    def arrays(self) -> dict[str, Array]:
        """None."""
        return {}
