"""Inverted dropout, whose mask is a function of numbers and not of a generator's history.

The mask follows from a key (seed, step, layer, …) and the tile, so it is the same for any number of threads
and after a resume, and the backward makes it again instead of storing it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asyncflow.compute.checks import Array, floating, same_shape, share, work_dtype
from asyncflow.compute.layout import zero_where
from asyncflow.compute.memory import fresh
from asyncflow.compute.scratch import scratch
from asyncflow.compute.tiles import plan, run_tiles


@dataclass(frozen=True, slots=True)
class DropoutContext:
    """What the backward needs to make the mask again."""

    rate: float
    key: tuple[int, ...]
    shape: tuple[int, ...]


def dropout_forward(x: Array, rate: float, *, key: tuple[int, ...]) -> tuple[Array, DropoutContext]:
    """Set a share of x to 0 and scale the rest by 1 / (1 - share), so the expectation stays.

    Args:
        x: Floating, any shape.
        rate: Probability of a 0, in [0, 1]; taken to the nearest 1 / 65536. 0 copies x, 1 gives zeros.
        key: Integers of at least 0 that name this mask: (seed, step, layer). An equal key is an equal mask.

    Returns:
        The result in x's shape and dtype, and the context for `dropout_backward`.

    Raises:
        RangeError: If rate is outside [0, 1].

    Example:
        >>> y, ctx = dropout_forward(np.ones(1000), 0.5, key=(0, 0))
        >>> sorted(set(y.tolist()))
        [0.0, 2.0]

    Source:
        Srivastava et al., Dropout, JMLR 15 (2014).
    """
    x = floating("x", x)
    rate = share("rate", rate, below_one=False)
    return _masked(x, rate, key), DropoutContext(rate, key, x.shape)


def dropout_backward(ctx: DropoutContext, dy: Array) -> Array:
    """The gradient of `dropout_forward`: dy under the same mask and scale.

    Raises:
        ShapeError: If dy does not have the input's shape.
    """
    dy = floating("dy", dy)
    same_shape("dy", dy, "x", np.broadcast_to(dy.dtype.type(0), ctx.shape))
    return _masked(dy, ctx.rate, ctx.key)


def _masked(x: Array, rate: float, key: tuple[int, ...]) -> Array:
    dropped = round(rate * 65536)
    if dropped == 0:
        return x.copy()
    if dropped == 65536:
        return np.zeros_like(x)
    scale = 65536 / (65536 - dropped)
    flat = np.ascontiguousarray(x).reshape(-1)
    out = fresh(flat.shape, flat.dtype)
    # The plan must not depend on the dtype: a float16 forward and a float32 backward share a mask.
    tiles = plan(flat.size, 4)

    def one(index: int) -> None:
        part = tiles[index]
        size = part.stop - part.start
        bits = np.random.SFC64(np.random.SeedSequence((*key, index)))
        gone = bits.random_raw(-(-size // 4)).view(np.uint16)[:size] < dropped
        work = work_dtype(x.dtype)
        result = np.multiply(flat[part], work.type(scale), out=scratch((size,), work), dtype=work)
        # Not a product with the mask: 0 · inf would be NaN.
        zero_where(gone, result, result)
        out[part] = result

    run_tiles(one, len(tiles))
    return out.reshape(x.shape)
