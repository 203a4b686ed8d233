"""Matrix products whose bits do not depend on threads: tiles of the result, one BLAS thread each."""

from __future__ import annotations

import numpy as np

from asyncflow.compute.checks import Array, cast, work_dtype
from asyncflow.compute.memory import fresh
from asyncflow.compute.tiles import plan, run_tiles

#: Multiplications and additions of one tile: a third of a millisecond of one core.
TILE_FLOPS = 1 << 25


def product(a: Array, b: Array, bias: Array | None = None) -> Array:
    """a @ b + bias for matrices of one dtype, transposed views included; float16 is multiplied in float32."""
    work = work_dtype(a.dtype)
    if a.dtype != work:
        wide = None if bias is None else cast(bias, work)
        return cast(product(cast(a, work), cast(b, work), wide), a.dtype)
    out = fresh((a.shape[0], b.shape[1]), a.dtype)
    # The longer side is cut: BLAS repacks the other operand for every tile, so it should be the smaller one.
    by_rows = a.shape[0] >= b.shape[1]
    tiles = plan(max(out.shape), 2 * a.shape[1] * min(out.shape), tile_bytes=TILE_FLOPS)

    def one(index: int) -> None:
        part = tiles[index]
        if by_rows:
            np.matmul(a[part], b, out=out[part])
            if bias is not None:
                out[part] += bias
        else:
            np.matmul(a, b[:, part], out=out[:, part])
            if bias is not None:
                out[:, part] += bias[part]

    run_tiles(one, len(tiles))
    return out
