# mypy: ignore-errors
"""The parts of attention between its matrix products, which stay with BLAS."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from asyncflow.compute import attend
from asyncflow.compute.numba_kernels.exp import OPTIONS, exp32, exp64, row_sum

_COMPILED = (np.float32, np.float64)


def _exp_row(exp):
    @njit(**OPTIONS)
    def row(x, shift):
        for j in range(x.shape[0]):
            x[j] = exp(x[j] - shift)

    return row


def _sums_loop(row):
    @njit(**OPTIONS)
    def loop(scores, shift, sums):
        for i in range(scores.shape[0]):
            row(scores[i], shift[i])
            sums[i] = row_sum(scores[i])

    return loop


def _exp_loop(row):
    @njit(**OPTIONS)
    def loop(scores, shift):
        for i in range(scores.shape[0]):
            row(scores[i], shift[i])

    return loop


_row32, _row64 = _exp_row(exp32), _exp_row(exp64)
_SUMS = {np.dtype(np.float32): _sums_loop(_row32), np.dtype(np.float64): _sums_loop(_row64)}
_EXPS = {np.dtype(np.float32): _exp_loop(_row32), np.dtype(np.float64): _exp_loop(_row64)}


@njit(**OPTIONS)
def slope_row(slope, p, mean):
    """slope = (slope - mean)·p."""
    for j in range(slope.shape[0]):
        slope[j] = (slope[j] - mean) * p[j]


@njit(**OPTIONS)
def slope_loop(slope, p, mean):
    """`slope_row` for all rows."""
    for i in range(slope.shape[0]):
        slope_row(slope[i], p[i], mean[i])


def exponentials(scores, shift):
    """As `attend._exponentials`."""
    if scores.dtype not in _SUMS:
        return attend._exponentials(scores, shift)
    sums = np.empty(len(scores), scores.dtype)
    _SUMS[scores.dtype](scores, shift, sums)
    return sums


def probabilities(scores, shift):
    """As `attend._probabilities`."""
    if scores.dtype not in _EXPS:
        return attend._probabilities(scores, shift)
    _EXPS[scores.dtype](scores, shift)


def slopes(slope, p, mean):
    """As `attend._slopes`."""
    if slope.dtype not in _COMPILED:
        return attend._slopes(slope, p, mean)
    slope_loop(slope, p, mean)


KERNELS: dict[str, Any] = {
    "attention_exponentials": exponentials,
    "attention_probabilities": probabilities,
    "attention_slopes": slopes,
}
