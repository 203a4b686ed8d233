"""What a loader reads: arrays and memory maps, frames, tuples of them, anything with `__getitem__`.

A source gathers the rows of a batch at once. Only for a plain `__getitem__` source does it ask item by item.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncflow.compute.checks import Array
from asyncflow.errors import DtypeError, ShapeError


class ArraySource:
    """Rows of an array or a memory map."""

    def __init__(self, array: Array) -> None:
        self.array = np.asarray(array)  # a memory map as a plain view: batches are plain arrays
        self.row_bytes = self.array.itemsize * int(np.prod(self.array.shape[1:], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.array)

    def rows(self, start: int, stop: int) -> Array:
        """Rows that follow one another, as a copy: a batch belongs to the user."""
        return self.array[start:stop].copy()

    def take(self, index: Array, out: Array | None = None) -> Array:
        """Any rows. `index` has been checked, so `clip` changes nothing and spares a buffer for `out`."""
        return np.take(self.array, index, axis=0, out=out, mode="raise" if out is None else "clip")

    def buffer(self, rows: int) -> Array:
        """Room for a batch."""
        return np.empty((rows, *self.array.shape[1:]), self.array.dtype)


class FrameSource:
    """Rows of a pandas frame or series; batches are frames or series."""

    def __init__(self, frame: Any) -> None:
        self.frame = frame
        usage = frame.memory_usage(index=False, deep=False)
        self.row_bytes = int(np.sum(usage)) // max(1, len(frame))

    def __len__(self) -> int:
        return len(self.frame)

    def rows(self, start: int, stop: int) -> Any:
        """Rows that follow one another, as a copy."""
        return self.frame.iloc[start:stop].copy()

    def take(self, index: Array, out: None = None) -> Any:
        """Any rows."""
        return self.frame.iloc[index]


class ItemSource:
    """Items of an object with `__len__` and `__getitem__`, stacked; `__getitems__` is asked for many at once.

    An item may be a number, an array, or a tuple or dict of them; a batch then is a tuple or dict of arrays.
    """

    row_bytes = 0

    def __init__(self, items: Any) -> None:
        self.items = items
        self.many = getattr(items, "__getitems__", None)

    def __len__(self) -> int:
        return len(self.items)

    def rows(self, start: int, stop: int) -> Any:
        """Items that follow one another."""
        return self.take(np.arange(start, stop))

    def take(self, index: Array, out: None = None) -> Any:
        """Any items."""
        places = index.tolist()
        return stacked(self.many(places) if self.many else [self.items[i] for i in places])


Source = ArraySource | FrameSource | ItemSource


def stacked(items: list[Any]) -> Any:
    """Items as one batch: arrays stacked, tuples and dicts part by part."""
    if not items:
        return np.empty(0)
    first = items[0]
    if isinstance(first, tuple):
        return tuple(stacked(list(part)) for part in zip(*items, strict=True))
    if isinstance(first, dict):
        return {name: stacked([item[name] for item in items]) for name in first}
    shapes = {np.shape(item) for item in items}
    if len(shapes) > 1:
        raise ShapeError(f"items of a batch must have one shape, got {sorted(shapes)}")
    return np.stack([np.asarray(item) for item in items])


def source_of(name: str, data: Any) -> Source:
    """The source that reads `data`.

    Raises:
        ShapeError: If there is no first axis to take rows from.
        DtypeError: If it is none of the kinds above.
    """
    if hasattr(data, "iloc"):
        return FrameSource(data)
    if isinstance(data, (list, tuple)):
        data = np.asarray(data)
        if data.dtype == object:
            raise DtypeError(f"{name} must hold numbers of one shape; for other objects pass a dataset class")
    if isinstance(data, np.ndarray):
        if data.ndim == 0:
            raise ShapeError(f"{name} must have a first axis of samples, got a single number")
        return ArraySource(data)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return ItemSource(data)
    raise DtypeError(
        f"{name} must be an array, a frame, a tuple of them, or have __len__ and __getitem__; "
        f"got {type(data).__name__}"
    )
