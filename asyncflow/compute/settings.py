"""The two knobs of an operation: how many threads it may use, and whose inner loops it runs.

Both are context variables: a `with` block binds them for the code inside (across `await`s, and in work
offloaded from inside) and for nobody else. Neither is read from the environment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from asyncflow.errors import NotSupportedError, RangeError

_threads: ContextVar[int] = ContextVar("asyncflow_compute_threads", default=1)
_kernels: ContextVar[str] = ContextVar("asyncflow_compute_kernels", default="numpy")


@contextmanager
def workers(n: int) -> Iterator[None]:
    """Let each operation inside the block use up to `n` threads, the calling one included.

    The result has the same bits for every `n`: an operation is cut into tiles by its shape alone, and
    BLAS keeps one thread inside an operation, with `workers(1)` too. All operations, loaders and `offload`
    of the process share one budget of helper threads, as many as there are processors, so a large `n`
    is a wish and not a command.

    Args:
        n: Threads per operation, at least 1. Without the block it is 1.

    Raises:
        RangeError: If n is not an integer of at least 1.

    Example:
        >>> import numpy as np
        >>> from asyncflow.compute import softmax, workers
        >>> with workers(2):
        ...     softmax(np.zeros((1, 4), np.float32))
        array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise RangeError(f"workers(n) needs an integer of at least 1, got {n!r}")
    token = _threads.set(n)
    try:
        yield
    finally:
        _threads.reset(token)


@contextmanager
def kernels(name: str) -> Iterator[None]:
    """Choose the inner loops for the code inside the block: `"numpy"` (the default) or `"numba"`.

    Numba loops are faster and are compiled on first use, which takes seconds; their results differ from
    NumPy's in the last bits. So they are never chosen silently. An operation or a dtype that has no numba
    loop runs NumPy's.

    Raises:
        RangeError: If the name is neither.
        NotSupportedError: If numba is asked for and not installed (`pip install 'asyncflow-engine[numba]'`).

    Example:
        >>> from asyncflow.compute import kernels
        >>> with kernels("numpy"):
        ...     pass
    """
    if name not in ("numpy", "numba"):
        raise RangeError(f'kernels(name) knows "numpy" and "numba", got {name!r}')
    if name == "numba":
        try:
            import numba  # noqa: F401
        except ImportError as exc:
            raise NotSupportedError(
                "kernels(\"numba\") needs the extra: pip install 'asyncflow-engine[numba]'"
            ) from exc
    token = _kernels.set(name)
    try:
        yield
    finally:
        _kernels.reset(token)


def threads() -> int:
    """How many threads an operation may use here."""
    return _threads.get()


def pick(name: str, numpy_tile: Callable[..., Any]) -> Callable[..., Any]:
    """The inner loop to run here for the operation `name`: numba's if asked for and there, else NumPy's."""
    if _kernels.get() == "numpy":
        return numpy_tile
    from asyncflow.compute.numba_kernels import find

    return find(name) or numpy_tile


def numba_asked() -> bool:
    """Whether the code runs inside `kernels("numba")`."""
    return _kernels.get() == "numba"
