"""Room for what a tile computes on the way, kept per thread.

A tile's temporary of 2 MiB is more than an allocator keeps at hand on a worker thread: it is given back to
the system and taken again for every tile, page by page, which can cost more than the arithmetic. So tile
functions ask here. A buffer is valid until the same thread asks for the same slot again; it must not leave
the tile function. Threads that end give theirs back; each slot holds at most 4 MiB.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

from asyncflow.compute.checks import Array
from asyncflow.compute.memory import aligned

#: Larger requests are plain allocations.
LARGEST = 4 << 20

_kept = threading.local()


def scratch(shape: tuple[int, ...], dtype: np.dtype[Any], slot: int = 0) -> Array:
    """An array with any content, of this thread and slot."""
    size_bytes = math.prod(shape) * dtype.itemsize
    if size_bytes > LARGEST:
        return np.empty(shape, dtype)
    buffers: dict[int, Array] = _kept.__dict__.setdefault("buffers", {})
    buffer = buffers.get(slot)
    if buffer is None or buffer.size < size_bytes:
        # A power of two, so that tiles of slightly different sizes share one.
        size_bytes_kept = max(4096, 1 << (size_bytes - 1).bit_length())
        buffer = buffers[slot] = aligned((size_bytes_kept,), np.dtype(np.uint8))
    return buffer[:size_bytes].view(dtype).reshape(shape)


def scratch_like(x: Array, slot: int = 0) -> Array:
    """The same, in the shape and dtype of `x`."""
    return scratch(x.shape, x.dtype, slot)
