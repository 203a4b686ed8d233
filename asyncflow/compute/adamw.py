"""Adam with decoupled weight decay: PyTorch's rule."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from asyncflow.compute.checks import Array, not_negative, share, work_dtype
from asyncflow.compute.optimizer import Optimizer, Rate, Update
from asyncflow.compute.parameter import Parameter
from asyncflow.compute.scratch import scratch_like
from asyncflow.compute.settings import pick


class AdamW(Optimizer):
    """Steps of about the learning rate's size, whatever the gradient's scale; decay is apart from them.

    Args:
        parameters: What to change; each is changed once, however often it is listed.
        learning_rate: A number of at least 0, or a schedule: a function of the number of steps made.
        betas: How much of the averages of g and g² a step keeps, each in [0, 1).
        eps: Added to the root of the second average, at least 0.
        weight_decay: Each step first shrinks the values by rate·weight_decay; 0 is Adam.

    Raises:
        RangeError: If a number is out of its range.

    Example:
        >>> from asyncflow.compute import Parameter
        >>> p = Parameter(np.array([1.0]))
        >>> p.grad[:] = 1e6
        >>> AdamW([p], 0.1, weight_decay=0.0).step()
        >>> p.value
        array([0.9])

    Source:
        Kingma and Ba, arXiv 1412.6980; Loshchilov and Hutter, arXiv 1711.05101.
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
        learning_rate: Rate = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, learning_rate, weight_decay)
        self.betas = share("betas[0]", betas[0]), share("betas[1]", betas[1])
        self.eps = not_negative("eps", eps)
        self._first, self._second = (
            [np.zeros(p.value.shape, work_dtype(p.value.dtype)) for p in self.parameters] for _ in range(2)
        )

    def _update(self, number: int, value: Array, grad: Array, rate: float) -> Update:
        tile = pick("adamw", _adamw)
        kind = value.dtype.type
        made = self.steps + 1
        root = math.sqrt(1 - self.betas[1] ** made)
        numbers = (
            kind(self.betas[0]), kind(1 - self.betas[0]), kind(self.betas[1]), kind(1 - self.betas[1]),
            kind(rate / (1 - self.betas[0] ** made) * root), kind(self.eps * root),
            kind(1 - rate * self.weight_decay),
        )  # fmt: skip

        def one(value: Array, grad: Array, first: Array, second: Array) -> None:
            tile(value, grad, first, second, *numbers)

        return one, [value, grad, self._first[number], self._second[number]]

    def _slots(self) -> dict[str, Array]:
        first = {f"first.{i}": a for i, a in enumerate(self._first)}
        return first | {f"second.{i}": a for i, a in enumerate(self._second)}


def _adamw(
    value: Array,
    grad: Array,
    first: Array,
    second: Array,
    keep1: float,
    take1: float,
    keep2: float,
    take2: float,
    rate: float,
    eps: float,
    shrink: float,
) -> None:
    """One step; rate and eps arrive with the second average's bias correction in them."""
    scratch = np.multiply(grad, take1, out=scratch_like(value))
    first *= keep1
    first += scratch
    np.square(grad, out=scratch)
    scratch *= take2
    second *= keep2
    second += scratch
    np.sqrt(second, out=scratch)
    scratch += eps
    np.divide(first, scratch, out=scratch)
    scratch *= rate
    if shrink != 1:
        value *= shrink
    value -= scratch
