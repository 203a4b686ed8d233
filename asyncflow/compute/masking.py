"""Which keys a query may see: shapes, alignments, and the part of a mask that a tile needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncflow.compute.checks import Array
from asyncflow.errors import DtypeError, ShapeError


@dataclass(frozen=True, slots=True, eq=False)
class Masking:
    """The mask and the causal rule of one call.

    Attributes:
        mask: Broadcast (as a view) to (…, queries, keys), boolean or floating, or None.
        batch: The leading axes that heads are counted over.
        offset: With a causal rule, query i sees keys up to i + offset; None without one.
    """

    mask: Array | None
    batch: tuple[int, ...]
    offset: int | None

    def last_key(self, stop: int, keys: int) -> int:
        """One past the last key that any query before `stop` may see."""
        return keys if self.offset is None else max(0, min(keys, stop + self.offset))

    def apply(self, scores: Array, head: int, rows: slice, columns: slice) -> None:
        """Write -inf where attention is not allowed, and add a floating mask."""
        if self.mask is not None:
            part = self.mask[np.unravel_index(head, self.batch)][rows, columns]
            if part.dtype == np.bool_:
                np.copyto(scores, -np.inf, where=~part)
            else:
                scores += part
        # Only a tile that the diagonal crosses has something to hide.
        if self.offset is not None and columns.stop - 1 > rows.start + self.offset:
            places = np.arange(rows.start, rows.stop)[:, None] + self.offset
            np.copyto(scores, -np.inf, where=np.arange(columns.start, columns.stop) > places)


def masking(
    mask: Any, causal: str | None, batch: tuple[int, ...], queries: int, keys: int, work: np.dtype[Any]
) -> Masking:
    """Check a mask against the shapes it belongs to.

    Raises:
        ShapeError: If it cannot be broadcast to (…, queries, keys) without adding axes.
        DtypeError: If it is neither boolean nor floating.
    """
    offset = {None: None, "top_left": 0, "bottom_right": keys - queries}[causal]
    if mask is None:
        return Masking(None, batch, offset)
    array = np.asarray(mask)
    if array.dtype != np.bool_ and array.dtype.kind != "f":
        raise DtypeError(
            f"mask must be boolean (True where attention is allowed) or floating (added), got {array.dtype}"
        )
    wanted = (*batch, queries, keys)
    if array.ndim < 2 or array.shape[-2:] != (queries, keys):
        raise ShapeError(
            f"mask must have shape (…, {queries}, {keys}), (queries, keys) at its end, got {array.shape}"
        )
    try:
        whole = np.broadcast_to(array, wanted)
    except ValueError:
        raise ShapeError(f"mask must broadcast to {wanted}, got {array.shape}") from None
    if array.dtype.kind == "f" and array.dtype != work:
        array = array.astype(work)
        whole = np.broadcast_to(array, wanted)
    return Masking(whole, batch, offset)
