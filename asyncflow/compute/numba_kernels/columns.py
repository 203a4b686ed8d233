# mypy: ignore-errors
"""Batch norm down the columns of a matrix: one pass for statistics, one for each result."""

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
        for i in range(start, min(start + _STRETCH, x.shape[0])):
            add_moments(x[i], shift, first, second)
        flush(first, mean)
        flush(second, square)


def moments(x):
    """As `columns._tile_moments`. Distances are from the mean of sixteen rows spread over the tile."""
    if x.dtype not in _COMPILED:
        return columns._tile_moments(x)
    rows = len(x)
    shift = x[:: -(-rows // 16)].mean(axis=0)
    first, second = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    moments_loop(x, shift, first, second)
    first /= rows
    return shift + first, np.maximum(second - rows * first**2, 0)


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
def sums_loop(g, x, mean, total, inner):
    """Σ g and Σ g·(x - mean), in stretches merged in float64."""
    first, second = np.zeros_like(mean), np.zeros_like(mean)
    for start in range(0, g.shape[0], _STRETCH):
        for i in range(start, min(start + _STRETCH, g.shape[0])):
            add_sums(g[i], x[i], mean, first, second)
        flush(first, total)
        flush(second, inner)


def sums(g, x, mean, near):
    """As `batch_norm._sums`."""
    if x.dtype not in _COMPILED:
        return batch_norm._sums(g, x, mean, near)
    total, inner = np.zeros(len(mean)), np.zeros(len(mean))
    rounded = mean.astype(x.dtype)
    sums_loop(g, x, rounded, total, inner)
    return total, inner - (mean - rounded) * total


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
