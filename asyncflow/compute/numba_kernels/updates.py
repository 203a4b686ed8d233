# mypy: ignore-errors
"""Optimizer steps in one pass over their arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numba.extending import register_jitable

from asyncflow.compute.adamw import _adamw
from asyncflow.compute.numba_kernels.exp import OPTIONS
from asyncflow.compute.sgd import _sgd

_COMPILED = (np.float32, np.float64)


@register_jitable
def decayed(grad, value, decay):
    """The gradient with the decay's part; without decay an infinite value takes no part (0·inf is NaN)."""
    return grad + decay * value if decay else grad


@njit(**OPTIONS)
def plain_sgd(value, grad, rate, decay):
    """Without momentum."""
    for j in range(value.shape[0]):
        value[j] -= decayed(grad[j], value[j], decay) * rate


@njit(**OPTIONS)
def heavy_sgd(value, grad, velocity, rate, momentum, decay):
    """With momentum."""
    for j in range(value.shape[0]):
        velocity[j] = momentum * velocity[j] + decayed(grad[j], value[j], decay)
        value[j] -= velocity[j] * rate


@njit(**OPTIONS)
def nesterov_sgd(value, grad, velocity, rate, momentum, decay):
    """With Nesterov's momentum."""
    for j in range(value.shape[0]):
        g = decayed(grad[j], value[j], decay)
        velocity[j] = momentum * velocity[j] + g
        value[j] -= (g + momentum * velocity[j]) * rate


def sgd(value, grad, velocity, rate, momentum, decay, nesterov):
    """As `sgd._sgd`."""
    if value.dtype not in _COMPILED:
        return _sgd(value, grad, velocity, rate, momentum, decay, nesterov)
    if not momentum:
        plain_sgd(value, grad, rate, decay)
    elif nesterov:
        nesterov_sgd(value, grad, velocity, rate, momentum, decay)
    else:
        heavy_sgd(value, grad, velocity, rate, momentum, decay)


@njit(**OPTIONS)
def adamw_loop(value, grad, first, second, keep1, take1, keep2, take2, rate, eps, shrink):
    """One step."""
    for j in range(value.shape[0]):
        first[j] = keep1 * first[j] + take1 * grad[j]
        second[j] = keep2 * second[j] + take2 * (grad[j] * grad[j])
        value[j] = value[j] * shrink - rate * (first[j] / (np.sqrt(second[j]) + eps))


def adamw(value, grad, first, second, *numbers):
    """As `adamw._adamw`."""
    if value.dtype not in _COMPILED:
        return _adamw(value, grad, first, second, *numbers)
    adamw_loop(value, grad, first, second, *numbers)


KERNELS: dict[str, Any] = {"sgd": sgd, "adamw": adamw}
