"""Matrix products whose bits do not depend on threads: tiles of the result's rows, one BLAS thread each."""

from __future__ import annotations

import numpy as np

from asyncflow.compute.checks import Array, cast, work_dtype
from asyncflow.compute.tiles import plan, run_tiles

#: Multiplications and additions of one tile: a third of a millisecond of one core.
TILE_FLOPS = 1 << 25


def product(a: Array, b: Array) -> Array:
    """a @ b for two matrices of one dtype, transposed views included; float16 is multiplied in float32."""
    work = work_dtype(a.dtype)
    if a.dtype != work:
        return cast(product(cast(a, work), cast(b, work)), a.dtype)
    out = np.empty((a.shape[0], b.shape[1]), a.dtype)
    tiles = plan(a.shape[0], 2 * a.shape[1] * b.shape[1], tile_bytes=TILE_FLOPS)

    def one(index: int) -> None:
        np.matmul(a[tiles[index]], b, out=out[tiles[index]])

    run_tiles(one, len(tiles))
    return out
