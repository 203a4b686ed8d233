"""Inner loops compiled by numba, used inside `kernels("numba")` only.

Each takes and writes what its NumPy twin does, tile by tile on our own threads with the interpreter lock
given up (`nogil`). Numba's own threads, which abort the process when two Python threads use them, are never
started. Loops exist for float32 and float64; another dtype runs NumPy's. The first use imports numba.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=1)
def _table() -> dict[str, Callable[..., Any]]:
    from asyncflow.compute.numba_kernels import attention, columns, rows, updates

    return {**rows.KERNELS, **columns.KERNELS, **attention.KERNELS, **updates.KERNELS}


def find(name: str) -> Callable[..., Any] | None:
    """The compiled loop of the operation `name`, or None where there is none."""
    return _table().get(name)
