"""Statistics and arithmetic down the columns of a matrix, or per channel of (rows, channels, length).

A channel's numbers are those at [:, c] or [:, c, :]. Statistics are taken per tile, with the tile in the
processor's cache, and all tiles are merged in one vectorised step in float64 (Chan, Golub and LeVeque,
Algorithms for computing the sample variance, The American Statistician 37, 1983).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from asyncflow.compute.checks import Array
from asyncflow.compute.memory import LINE, aligned
from asyncflow.compute.scratch import scratch_like
from asyncflow.compute.settings import pick
from asyncflow.compute.sums import column_dots, column_sums
from asyncflow.compute.tiles import BUFFER, map_tiles, plan

#: Up to this |mean| / σ the plain sums of x and x² are used: they cost 1 + 2² of the accuracy at most. Beyond
#: it a tile's mean is subtracted first.
NEAR = 2.0

#: Rows of which two fit into the buffer of NumPy's loops are joined to about this length.
WIDE = 2048


def as_channels(x: Array, axis: int) -> Array:
    """A contiguous (rows, channels) or (rows, channels, length) view, or copy, of `x`."""
    before, channels = math.prod(x.shape[:axis]), x.shape[axis]
    length = math.prod(x.shape[axis + 1 :])
    x = np.ascontiguousarray(x)
    return x.reshape(before, channels) if length == 1 else x.reshape(before, channels, length)


def channel_tiles(x: Array) -> list[slice]:
    """The plan for arrays from `as_channels`, by rows."""
    return plan(len(x), x[:1].nbytes)


def per_channel(values: list[Array], x: Array, work: np.dtype[Any]) -> list[Array]:
    """Each of `values`, one number per channel, in `work` and in a shape that meets x's channels.

    Every row of a matrix reads them again, so each begins at a line of the cache.
    """
    channels = len(values[0])
    block = aligned((len(values), -(-channels // LINE) * LINE), work)[:, :channels]
    block[...] = values
    return list(block if x.ndim == 2 else block[:, :, None])


def moments(x: Array, work: np.dtype[Any]) -> tuple[Array, Array]:
    """Mean and variance (divided by the count) of each channel, float64, right for millions of float32."""
    tiles = channel_tiles(x)
    each = x.size // x.shape[1] // len(x)
    tile = pick("batch_norm_moments", _tile_moments) if x.ndim == 2 else _tile_moments
    parts = map_tiles(lambda part: tile(x[part].astype(work, copy=False)), tiles)
    sizes = np.array([(part.stop - part.start) * each for part in tiles], np.float64)[:, None]
    means, squares = np.array([p[0] for p in parts]), np.array([p[1] for p in parts])
    # Merged about the first tile's mean: a common large part must not be squared.
    apart = means - means[0]
    shift = (sizes * apart).sum(axis=0) / sizes.sum()
    total = squares.sum(axis=0) + (sizes * (apart - shift) ** 2).sum(axis=0)
    return means[0] + shift, total / sizes.sum()


def _tile_moments(x: Array) -> tuple[Array, Array]:
    """The mean, and the sum of squared distances from it, of each channel of one tile."""
    size = x.size // x.shape[1]
    mean = column_sums(x) / size
    square = column_dots(x, x) / size - mean**2
    # A far mean (or NaN, for which the comparison is False) takes the careful path.
    if np.all(mean**2 <= NEAR**2 * square):
        return mean, square * size
    (rounded,) = per_channel([mean], x, x.dtype)
    distance = np.subtract(x, rounded, out=scratch_like(x))
    offset = mean - rounded.reshape(-1)  # what rounding the mean to x's dtype left out
    left = column_sums(distance) / size
    spread = column_dots(distance, distance) - size * left**2
    return mean - offset + left, np.maximum(spread, 0)


def by_wide_rows(function: Callable[..., None], arrays: list[Array], vectors: list[Array]) -> None:
    """Call `function(*arrays, *vectors)` with several rows joined to one, where rows are short.

    NumPy's inner loop is one row, or several rows with the vectors copied to a buffer for them; either costs
    as much as the operation. The arithmetic is the same, number by number.
    """
    first = arrays[0]
    rows, columns = first.shape[0], first.shape[1]
    join = min(rows, WIDE // columns) if first.ndim == 2 and 2 * columns <= BUFFER else 1
    if join <= 1:
        function(*arrays, *vectors)
        return
    whole = rows - rows % join
    joined = [x[:whole].reshape(-1, join * columns) for x in arrays]
    function(*joined, *(np.tile(v, join) for v in vectors))
    if whole < rows:
        function(*(x[whole:] for x in arrays), *vectors)
