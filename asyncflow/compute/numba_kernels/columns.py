# mypy: ignore-errors
"""Batch norm down the columns of a matrix: one pass for statistics, one for each result.

A large array is in no cache, so reading it is what takes the time. The sums read four rows at once: with more
of them under way, the wait for the next one is shorter (a quarter off). What writes row by row does not gain
from that, nor from stores past the cache; blocks of columns, whose reads jump, take four times as long.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from asyncflow.compute import batch_norm, columns
from asyncflow.compute.numba_kernels.exp import OPTIONS

_STRETCH = 256
_COMPILED = (np.float32, np.float64)


@njit(**OPTIONS)
def add_moments(x, shift, first, second):
    """first += x - shift, second += (x - shift)², one row."""
    for j in range(x.shape[0]):
        distance = x[j] - shift[j]
        first[j] += distance
        second[j] += distance * distance


@njit(**OPTIONS)
def add_four_moments(x0, x1, x2, x3, shift, first, second):
    """The same for four rows, added to each other first."""
    for j in range(x0.shape[0]):
        d0, d1, d2, d3 = x0[j] - shift[j], x1[j] - shift[j], x2[j] - shift[j], x3[j] - shift[j]
        first[j] += (d0 + d1) + (d2 + d3)
        second[j] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)


@njit(**OPTIONS)
def flush(short, long):
    """long += short; short = 0."""
    for j in range(short.shape[0]):
        long[j] += short[j]
        short[j] = 0


@njit(**OPTIONS)
def moments_loop(x, shift, mean, square):
    """The sums of distances from `shift` and of their squares, in stretches merged in float64."""
    first, second = np.zeros_like(shift), np.zeros_like(shift)
    for start in range(0, x.shape[0], _STRETCH):
        stop = min(start + _STRETCH, x.shape[0])
        fours = stop - (stop - start) % 4
        for i in range(start, fours, 4):
            add_four_moments(x[i], x[i + 1], x[i + 2], x[i + 3], shift, first, second)
        for i in range(fours, stop):
            add_moments(x[i], shift, first, second)
        flush(first, mean)
        flush(second, square)


@njit(**OPTIONS)
def moments_tile(x):
    """The mean, and the sum of squared distances from it, of each column."""
    rows, columns = x.shape
    mean, square = np.zeros(columns), np.zeros(columns)
    step = -(-rows // 16)
    for i in range(0, rows, step):
        for j in range(columns):
            mean[j] += x[i, j]
    shift = np.empty_like(x[0])
    for j in range(columns):
        shift[j] = mean[j] / -(-rows // step)
        mean[j] = 0
    moments_loop(x, shift, mean, square)
    for j in range(columns):
        left = mean[j] / rows
        mean[j] = shift[j] + left
        spread = square[j] - rows * left**2
        square[j] = 0 if spread < 0 else spread
    return mean, square


def moments(x):
    """As `columns._tile_moments`. Distances are from the mean of sixteen rows spread over the tile."""
    return moments_tile(x) if x.dtype in _COMPILED else columns._tile_moments(x)


@njit(**OPTIONS)
def affine_row(x, a, b, out):
    """out = x·a + b."""
    for j in range(x.shape[0]):
        out[j] = x[j] * a[j] + b[j]


@njit(**OPTIONS)
def centred_row(x, m, a, b, out):
    """out = (x - m)·a + b."""
    for j in range(x.shape[0]):
        out[j] = (x[j] - m[j]) * a[j] + b[j]


@njit(**OPTIONS)
def affine_loop(x, out, a, b):
    """`affine_row` for all rows."""
    for i in range(x.shape[0]):
        affine_row(x[i], a, b, out[i])


@njit(**OPTIONS)
def centred_loop(x, out, a, b, m):
    """`centred_row` for all rows."""
    for i in range(x.shape[0]):
        centred_row(x[i], m, a, b, out[i])


def normalise(x, out, a, b, m):
    """As `batch_norm._affine`."""
    if x.dtype not in _COMPILED:
        return batch_norm._affine(x, out, a, b, m)
    if m is None:
        affine_loop(x, out, a, b)
    else:
        centred_loop(x, out, a, b, m)


@njit(**OPTIONS)
def add_sums(g, x, mean, first, second):
    """first += g, second += g·(x - mean), one row."""
    for j in range(g.shape[0]):
        first[j] += g[j]
        second[j] += g[j] * (x[j] - mean[j])


@njit(**OPTIONS)
def add_four_sums(g0, g1, g2, g3, x0, x1, x2, x3, mean, first, second):
    """The same for four rows, added to each other first."""
    for j in range(g0.shape[0]):
        m = mean[j]
        first[j] += (g0[j] + g1[j]) + (g2[j] + g3[j])
        second[j] += (g0[j] * (x0[j] - m) + g1[j] * (x1[j] - m)) + (g2[j] * (x2[j] - m) + g3[j] * (x3[j] - m))


@njit(**OPTIONS)
def sums_loop(g, x, mean, total, inner):
    """Σ g and Σ g·(x - mean), in stretches merged in float64."""
    first, second = np.zeros_like(mean), np.zeros_like(mean)
    for start in range(0, g.shape[0], _STRETCH):
        stop = min(start + _STRETCH, g.shape[0])
        fours = stop - (stop - start) % 4
        for i in range(start, fours, 4):
            add_four_sums(
                g[i], g[i + 1], g[i + 2], g[i + 3], x[i], x[i + 1], x[i + 2], x[i + 3], mean, first, second
            )
        for i in range(fours, stop):
            add_sums(g[i], x[i], mean, first, second)
        flush(first, total)
        flush(second, inner)


@njit(**OPTIONS)
def sums_tile(g, x, mean):
    """Σ g and Σ g·(x - mean) of each column, the mean in float64."""
    total, inner = np.zeros_like(mean), np.zeros_like(mean)
    rounded = np.empty_like(x[0])
    for j in range(mean.shape[0]):
        rounded[j] = mean[j]
    sums_loop(g, x, rounded, total, inner)
    for j in range(mean.shape[0]):
        inner[j] -= (mean[j] - rounded[j]) * total[j]
    return total, inner


def sums(g, x, mean, near):
    """As `batch_norm._sums`."""
    return sums_tile(g, x, mean) if x.dtype in _COMPILED else batch_norm._sums(g, x, mean, near)


@njit(**OPTIONS)
def gradient_row(g, x, m, a, b, c, out):
    """out = g·a - (x - m)·b + c."""
    for j in range(g.shape[0]):
        out[j] = g[j] * a[j] + (c[j] - (x[j] - m[j]) * b[j])


@njit(**OPTIONS)
def gradient_loop(g, x, out, a, b, c, m):
    """`gradient_row` for all rows."""
    for i in range(g.shape[0]):
        gradient_row(g[i], x[i], m, a, b, c, out[i])


def gradient(g, x, out, a, b, c, m):
    """As `batch_norm._gradient`."""
    if x.dtype not in _COMPILED:
        return batch_norm._gradient(g, x, out, a, b, c, m)
    gradient_loop(g, x, out, a, b, c, np.zeros_like(a) if m is None else m)


KERNELS: dict[str, Any] = {
    "batch_norm_moments": moments,
    "batch_norm_normalise": normalise,
    "batch_norm_sums": sums,
    "batch_norm_gradient": gradient,
}
