"""What a function accepts: each check names the argument, what was given and what is needed."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from asyncflow.compute.memory import fresh
from asyncflow.errors import DtypeError, RangeError, ShapeError

Array: TypeAlias = npt.NDArray[Any]


def floating(name: str, x: Any) -> Array:
    """`x` as an array of a floating dtype, without a copy where it is one."""
    array = np.asarray(x)
    if array.dtype.kind != "f":
        raise DtypeError(
            f"{name} must be a floating array, got {array.dtype} of shape {array.shape}; "
            f"convert it first, e.g. np.asarray({name}, np.float32)"
        )
    return array


def real(name: str, x: Any, dtype: np.dtype[Any]) -> Array:
    """`x` as an array of `dtype`, from any real numbers: floating, integer or boolean."""
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise DtypeError(f"{name} must hold real numbers, got {array.dtype} of shape {array.shape}")
    return array.astype(dtype, copy=False)


def cast(x: Array, dtype: np.dtype[Any]) -> Array:
    """`x` in another dtype, not copied if it has it; numbers too large become infinite without a warning."""
    if x.dtype == dtype:
        return x
    with np.errstate(all="ignore"):
        return x.astype(dtype)


def same_shape(name: str, x: Array, other: str, y: Array) -> None:
    """Refuse shapes that differ, those NumPy would broadcast included: (n, 1) against (n,) is n by n."""
    if x.shape != y.shape:
        raise ShapeError(f"{name} must have the shape of {other}, {y.shape}, got {x.shape}")


def vector(name: str, x: Any, size: int, dtype: np.dtype[Any]) -> Array:
    """`x` as a contiguous vector of `size` numbers of `dtype`."""
    array = real(name, x, dtype)
    if array.shape != (size,):
        raise ShapeError(f"{name} must have shape ({size},), got {array.shape}")
    return np.ascontiguousarray(array)


def axis_of(axis: int, ndim: int) -> int:
    """`axis` counted from the front."""
    if not -ndim <= axis < ndim:
        raise ShapeError(f"axis {axis} is out of range for an array of {ndim} dimensions")
    return axis % ndim


def output(out: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """`out`, checked, or a new array."""
    if out is None:
        return fresh(shape, dtype)
    if not isinstance(out, np.ndarray):
        raise DtypeError(f"out must be a NumPy array, got {type(out).__name__}")
    if out.shape != shape:
        raise ShapeError(f"out must have shape {shape}, got {out.shape}")
    if out.dtype != dtype:
        raise DtypeError(f"out must have dtype {dtype}, got {out.dtype}")
    if not out.flags.writeable:
        raise RangeError("out must be writeable, got a read-only array")
    return out


def share(name: str, value: float, *, below_one: bool = True) -> float:
    """A number in [0, 1), or in [0, 1]."""
    if not (0.0 <= value < 1.0 or (value == 1.0 and not below_one)):
        raise RangeError(f"{name} must be in [0, 1{')' if below_one else ']'}, got {value!r}")
    return float(value)


def positive(name: str, value: float) -> float:
    """A finite number above 0."""
    if not (value > 0 and math.isfinite(value)):
        raise RangeError(f"{name} must be a finite number above 0, got {value!r}")
    return float(value)


def not_negative(name: str, value: float) -> float:
    """A finite number of at least 0."""
    if not (value >= 0 and math.isfinite(value)):
        raise RangeError(f"{name} must be a finite number of at least 0, got {value!r}")
    return float(value)


def count(name: str, value: Any, *, least: int = 1) -> int:
    """An integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise RangeError(f"{name} must be an integer of at least {least}, got {value!r}")
    return int(value)


def one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """One of a few words."""
    if value not in allowed:
        raise RangeError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def work_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype to compute in: float16 is stored, never computed in (sums overflow at 65504)."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype
