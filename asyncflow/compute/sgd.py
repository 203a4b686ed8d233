"""Stochastic gradient descent with momentum, Nesterov's variant and weight decay: PyTorch's rule."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from asyncflow.compute.checks import Array, share, work_dtype
from asyncflow.compute.optimizer import Optimizer, Rate, Update
from asyncflow.compute.parameter import Parameter
from asyncflow.compute.scratch import scratch_like
from asyncflow.compute.settings import pick
from asyncflow.errors import RangeError


class SGD(Optimizer):
    """value -= rate·g, with g the gradient plus weight_decay·value, through a velocity if there is momentum.

    velocity = momentum·velocity + g, from 0; then value -= rate·velocity, or with Nesterov's variant
    value -= rate·(g + momentum·velocity). Decay applies to all parameters.

    Args:
        parameters: What to change; each is changed once, however often it is listed.
        learning_rate: A number of at least 0, or a schedule: a function of the number of steps made.
        momentum: In [0, 1).
        nesterov: Needs momentum.
        weight_decay: At least 0.

    Raises:
        RangeError: If a number is out of its range.

    Example:
        >>> from asyncflow.compute import Parameter
        >>> p = Parameter(np.array([1.0]))
        >>> p.grad[:] = 2.0
        >>> SGD([p], 0.1).step()
        >>> p.value
        array([0.8])
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
        learning_rate: Rate,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, learning_rate, weight_decay)
        self.momentum = share("momentum", momentum)
        if nesterov and not momentum:
            raise RangeError("nesterov needs a momentum above 0, got 0.0")
        self.nesterov = nesterov
        self._velocity = [np.zeros(p.value.shape, work_dtype(p.value.dtype)) for p in self.parameters]

    def _update(self, number: int, value: Array, grad: Array, rate: float) -> Update:
        tile = pick("sgd", _sgd)
        kind = value.dtype.type
        numbers = kind(rate), kind(self.momentum), kind(self.weight_decay)
        arrays = [value, grad, self._velocity[number]] if self.momentum else [value, grad]

        def one(value: Array, grad: Array, velocity: Array | None = None) -> None:
            tile(value, grad, value if velocity is None else velocity, *numbers, self.nesterov)

        return one, arrays

    def _slots(self) -> dict[str, Array]:
        return {f"velocity.{i}": v for i, v in enumerate(self._velocity)} if self.momentum else {}


def _sgd(
    value: Array,
    grad: Array,
    velocity: Array,
    rate: float,
    momentum: float,
    decay: float,
    nesterov: bool,
) -> None:
    scratch = scratch_like(value)
    g = grad
    if decay:
        g = np.multiply(value, decay, out=scratch_like(value, 1))
        g += grad
    if momentum:
        velocity *= momentum
        velocity += g
        if nesterov:
            np.multiply(velocity, momentum, out=scratch)
            scratch += g
            scratch *= rate
        else:
            np.multiply(velocity, rate, out=scratch)
    else:
        np.multiply(g, rate, out=scratch)
    value -= scratch
