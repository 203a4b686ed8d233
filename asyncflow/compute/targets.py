"""What a classification loss may be compared with: class indices with weights, or probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncflow.compute.checks import Array, vector
from asyncflow.errors import DtypeError, RangeError, ShapeError


@dataclass(frozen=True, slots=True)
class IndexTargets:
    """Class indices, checked.

    Attributes:
        index: int64, shape (n,); 0 where the row is ignored.
        counted: Which rows are not ignored, bool, shape (n,).
        row_weight: The weight of each row's class, 0 where the row is ignored, float64, shape (n,).
        weight: The class weights in the computing dtype, or None for ones.
        total: What the mean divides by: the sum of row_weight.
    """

    index: Array
    counted: Array
    row_weight: Array
    weight: Array | None
    total: float


def index_targets(
    targets: Array, rows: int, classes: int, weight: Any, ignore_index: int, dtype: np.dtype[Any]
) -> IndexTargets:
    """Check class indices against the scores they belong to.

    Raises:
        ShapeError: If there is not one index per row.
        DtypeError: If they are not integers.
        RangeError: If one is outside [0, classes) and not `ignore_index`.
    """
    if targets.dtype.kind not in "iu":
        raise DtypeError(
            f"targets must be integer class indices of shape ({rows},) or floating probabilities of shape "
            f"({rows}, {classes}), got {targets.dtype} of shape {targets.shape}"
        )
    if targets.shape != (rows,):
        raise ShapeError(
            f"targets must hold one class index per row, shape ({rows},), got {targets.shape}"
            + ("; use targets.ravel()" if targets.shape == (rows, 1) else "")
        )
    index = targets.astype(np.int64)
    simple = weight is None and not 0 <= ignore_index < classes
    if simple and rows and index.min() >= 0 and index.max() < classes:
        # The common case, without the work for ignored rows and weights.
        return IndexTargets(index, np.ones(rows, np.bool_), np.ones(rows), None, float(rows))
    ignored = index == ignore_index
    bad = ((index < 0) | (index >= classes)) & ~ignored
    if bad.any():
        row = int(bad.argmax())
        raise RangeError(
            f"targets must be in [0, {classes}) or {ignore_index} (ignored), "
            f"got {int(targets[row])} in row {row}"
        )
    index[ignored] = 0
    by_class = None if weight is None else vector("weight", weight, classes, dtype)
    if by_class is None:
        row_weight = np.where(ignored, 0.0, 1.0)
    else:
        row_weight = np.where(ignored, 0.0, by_class[index].astype(np.float64))
    return IndexTargets(index, ~ignored, row_weight, by_class, float(row_weight.sum()))


def probability_targets(targets: Array, rows: int, classes: int, ignore_index: int) -> Array:
    """Check probabilities against the scores they belong to. Whether rows sum to 1 is the caller's affair.

    Raises:
        ShapeError: If the shape is not that of the scores.
        RangeError: If a class is to be ignored, which probabilities cannot say.
    """
    if targets.shape != (rows, classes):
        raise ShapeError(
            f"targets of dtype {targets.dtype} are probabilities and must have shape ({rows}, {classes}), "
            f"got {targets.shape}; class indices must be integers"
        )
    if ignore_index >= 0:
        raise RangeError(f"ignore_index needs class indices as targets, got probabilities and {ignore_index}")
    return np.ascontiguousarray(targets)
