"""Arrays of any shape and stride as rows that a tile function can work on.

A tile function gets contiguous arrays of a computing dtype (float16 arrives as float32) and writes its
last argument. It may be given the same array as input and output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from asyncflow.compute.checks import Array, axis_of, output, work_dtype
from asyncflow.compute.memory import fresh
from asyncflow.compute.settings import numba_asked
from asyncflow.compute.tiles import plan, run_tiles

Tile = Callable[..., Any]


def map_elements(tile: Tile, inputs: tuple[Array, ...], out: Array | None) -> Array:
    """Run `tile(*inputs, out)` on flat pieces of arrays of one shape and dtype."""
    first = inputs[0]
    result = output(out, first.shape, first.dtype)
    flat = [np.ascontiguousarray(x).reshape(-1) for x in inputs]
    target = _target(result, flat)
    _run(tile, flat, target.reshape(-1), plan(first.size, first.itemsize))
    return _settle(result, target)


def map_rows(tile: Tile, inputs: tuple[Array, ...], axis: int, out: Array | None) -> Array:
    """Run `tile(*inputs, out)` on blocks of rows, shape (rows, length of `axis`).

    The axis is brought to the end with a copy where it is not there already.
    """
    first = inputs[0]
    axis = axis_of(axis, first.ndim)
    result = output(out, first.shape, first.dtype)
    if first.size == 0:
        return result
    length = first.shape[axis]
    last = axis == first.ndim - 1
    rows = [np.ascontiguousarray(x if last else np.moveaxis(x, axis, -1)).reshape(-1, length) for x in inputs]
    if last:
        target = _target(result, rows)
        _run(tile, rows, target.reshape(-1, length), plan(len(rows[0]), length * first.itemsize))
        return _settle(result, target)
    moved = fresh(rows[0].shape, rows[0].dtype)
    _run(tile, rows, moved, plan(len(moved), length * first.itemsize))
    swapped = np.moveaxis(result, axis, -1)
    swapped[...] = moved.reshape(swapped.shape)
    return result


def zero_where(condition: Array, x: Array, out: Array) -> None:
    """x, with 0 where the condition holds, also for infinities and NaN.

    By bits: `np.copyto(..., where=...)` branches number by number and is five times slower on random masks.
    """
    if x.itemsize > 8:
        out[...] = np.where(condition, x.dtype.type(0), x)
        return
    whole = np.dtype(f"i{x.itemsize}")
    keep = condition.astype(whole)
    keep -= 1  # 1 becomes no bits, 0 becomes all
    np.bitwise_and(x.view(whole), keep, out=out.view(whole))


def _target(result: Array, inputs: list[Array]) -> Array:
    """Where tiles write: `result` itself, unless a tile could overwrite what a later one reads."""
    if not result.flags.c_contiguous:
        return fresh(result.shape, result.dtype)
    for x in inputs:
        if np.may_share_memory(result, x):
            same = result.ctypes.data == x.ctypes.data and result.nbytes == x.nbytes
            # A numba loop whose input and output are one array is no longer vectorised.
            if not same or numba_asked():
                return fresh(result.shape, result.dtype)
    return result


def _settle(result: Array, target: Array) -> Array:
    if target is not result:
        result[...] = target
    return result


def _run(tile: Tile, inputs: list[Array], out: Array, tiles: list[slice]) -> None:
    work = work_dtype(out.dtype)

    def one(index: int) -> None:
        part = tiles[index]
        if work == out.dtype:
            tile(*(x[part] for x in inputs), out[part])
            return
        result = np.empty(out[part].shape, work)
        tile(*(x[part].astype(work) for x in inputs), result)
        out[part] = result

    run_tiles(one, len(tiles))
