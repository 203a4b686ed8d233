"""NumPy arrays and scalars as text: npy without pickle, base64.

NumPy is not imported for values that are none of its own: where it has not been imported, there is no array.
"""

from __future__ import annotations

import io
import sys
from base64 import b64decode, b64encode
from typing import Any


def is_array(value: Any) -> bool:
    """Whether it is exactly an ndarray; subclasses (masked arrays, matrices) would be forgotten by npy."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray


def dump(value: Any) -> tuple[str, str] | None:
    """The tag and text of an array or a NumPy scalar, or None where npy could not hold it."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, (numpy.ndarray, numpy.generic)):
        return None
    if isinstance(value, numpy.ndarray) and not is_array(value):
        return None
    if value.dtype.hasobject or type(value) is numpy.record:
        return None
    buffer = io.BytesIO()
    numpy.lib.format.write_array(buffer, numpy.asarray(value), allow_pickle=False)
    return ("$npy" if is_array(value) else "$scalar"), b64encode(buffer.getvalue()).decode("ascii")


def load(body: str) -> Any:
    """The array, writable, in the dtype and memory order that it had."""
    from numpy.lib import format as npy

    return npy.read_array(io.BytesIO(b64decode(body)), allow_pickle=False)


def load_scalar(body: str) -> Any:
    """The NumPy scalar."""
    return load(body)[()]
