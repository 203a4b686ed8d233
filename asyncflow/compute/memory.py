"""Room for results, used again once nobody has them any more.

A result of some MiB is more than the allocator keeps: it goes back to the system with its last reference, and
the next one of its size comes page by page, which can cost more than the arithmetic (a softmax of 32 MiB has
8000 pages: 12 ms). So large results stand in blocks that return here when the array and all its views are
gone, and not before. At most `KEPT_BYTES` wait for their next use; what is beyond goes back to the system.

Large results, and what else `aligned` makes, begin at a line of the processor's cache. NumPy's own arrays
begin 16 bytes into one, so that every second load of 32 bytes touches two lines: up to a fifth of a compiled
loop's time. In a loop over an array and its gradient it is enough that one of the two begins at a line.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

#: Smaller results are plain allocations, and at most so much is kept.
LEAST_BYTES = 1 << 20
KEPT_BYTES = 64 << 20

#: Bytes of a line of the processor's cache.
LINE = 64

_blocks: list[Array] = []
# A finalizer may run in the middle of any of the lines below, on the thread that holds the lock.
_lock = threading.RLock()


def fresh(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array with any content that belongs to the caller, as from `np.empty`.

    Example:
        >>> fresh((2, 3), np.dtype(np.float32)).shape
        (2, 3)
    """
    size_bytes = math.prod(shape) * dtype.itemsize
    if size_bytes < LEAST_BYTES:
        return np.empty(shape, dtype)
    return np.asarray(_Loan(_taken(size_bytes), shape, dtype))


def aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array with any content that begins at a line of the cache, for what is read again and again.

    Example:
        >>> aligned((3,), np.dtype(np.float32)).ctypes.data % LINE
        0
    """
    block = np.empty(math.prod(shape) * dtype.itemsize + LINE, np.uint8)
    start = -block.__array_interface__["data"][0] % LINE
    return np.ndarray(shape, dtype, block, start)


class _Loan:
    """What the array made from it refers to, and so do its views; gives the block back when they are gone."""

    __slots__ = ("__array_interface__", "_block")

    def __init__(self, block: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._block = block
        self.__array_interface__ = {
            "version": 3, "shape": shape, "typestr": dtype.str, "data": (block.ctypes.data, False)
        }  # fmt: skip

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not finalizing():  # at the end of the program the names of this module may be gone already
            _given_back(self._block)


def _taken(size_bytes: int) -> Array:
    with _lock:
        for place in range(len(_blocks) - 1, -1, -1):
            if size_bytes <= _blocks[place].nbytes <= 2 * size_bytes:
                return _blocks.pop(place)
    return aligned((size_bytes,), np.dtype(np.uint8))


def _given_back(block: Array) -> None:
    if block.nbytes > KEPT_BYTES:
        return
    with _lock:
        _blocks.append(block)
        while sum(b.nbytes for b in _blocks) > KEPT_BYTES:
            del _blocks[0]


def _after_fork() -> None:
    """Another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
