"""Holding the length of the whole gradient."""

from __future__ import annotations

import math
from collections.abc import Iterable

from asyncflow.compute.checks import Array, positive
from asyncflow.compute.optimizer import update_tiles
from asyncflow.compute.parameter import Parameter
from asyncflow.compute.sums import dot
from asyncflow.compute.tiles import map_tiles, plan


def gradient_norm(parameters: Iterable[Parameter]) -> float:
    """The Euclidean length of all gradients together, summed in float64.

    Example:
        >>> import numpy as np
        >>> p = Parameter(np.zeros(2))
        >>> p.grad[:] = [3.0, 4.0]
        >>> gradient_norm([p])
        5.0
    """
    found = {id(p): p for p in parameters}
    return math.sqrt(sum(_square(p.grad) for p in found.values()))


def _square(grad: Array) -> float:
    flat = grad.reshape(-1)
    return math.fsum(map_tiles(lambda part: dot(flat[part], flat[part]), plan(flat.size, flat.itemsize)))


def clip_gradients(parameters: Iterable[Parameter], max_norm: float) -> float:
    """Scale all gradients so that their length together is at most `max_norm`.

    Args:
        parameters: Whose gradients; each counts once.
        max_norm: Above 0.

    Returns:
        The length before. If it is infinite or NaN the gradients are left alone: scaling would turn them
        into zeros or NaN, and whoever sees the number can skip the step.

    Example:
        >>> import numpy as np
        >>> p = Parameter(np.zeros(2))
        >>> p.grad[:] = [3.0, 4.0]
        >>> clip_gradients([p], 1.0), p.grad
        (5.0, array([0.6, 0.8]))

    Source:
        Pascanu, Mikolov and Bengio, arXiv 1211.5063.
    """
    positive("max_norm", max_norm)
    found = {id(p): p for p in parameters}
    norm = gradient_norm(found.values())
    if math.isfinite(norm) and norm > max_norm:
        for p in found.values():
            scale_gradient(p, max_norm / norm)
    return norm


def scale_gradient(parameter: Parameter, factor: float) -> None:
    """Multiply a gradient by a number."""
    number = parameter.grad.dtype.type(factor)

    def scale(grad: Array, _: Array) -> None:
        grad *= number

    update_tiles([(scale, [parameter.grad, parameter.grad])])
