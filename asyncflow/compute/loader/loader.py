"""Batches of samples in an order that follows from (seed, epoch); one object for `for` and `async for`."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncflow.compute.checks import Array, count
from asyncflow.compute.loader.epoch import Epoch, Position
from asyncflow.compute.loader.order import (
    BatchSize,
    Sampler,
    batch_count,
    batch_size_at,
    batches,
    check_batch_size,
    checked_order,
    permutation,
)
from asyncflow.compute.loader.source import ArraySource, Source, source_of
from asyncflow.errors import NotSupportedError, RangeError, ShapeError


class DataLoader:
    """Mini-batches of one or several sources of the same length.

    Each iteration is the next epoch. Two iterations at the same time are two epochs, independent of each
    other. Batches are the user's own arrays. `X` alone gives batches of X; with `y` they are pairs.

    Args:
        X: An array or a memory map of shape (n, …), a pandas frame, a tuple of these (batches are then
            tuples), or any object with `__len__` and `__getitem__`, asked item by item (`__getitems__`,
            if there is one, by batch).
        y: The same, of the same length, or None.
        batch_size: An integer; a list of sizes in turn, the last one repeated; or a function of the epoch
            (see `doubling`).
        shuffle: Another order every epoch, from (seed, epoch).
        seed: An integer of at least 0.
        drop_last: Leave out a last batch that is smaller than asked.
        prefetch: Batches gathered ahead on threads; 0 gathers when asked (`async for` gathers on a thread
            in any case).
        prefetch_bytes: Also bounds what is ahead, by its size; one batch is always allowed.
        sampler: A function from the epoch to sample indices, or one fixed list, instead of `shuffle`.
        pad: Fill a last smaller batch with zeros to full size, and add to every batch a mask, shape
            (batch,), True for samples. Arrays only.
        reuse_buffers: Batches live in a few buffers that are written again: one is valid until the next
            is asked for. Arrays only.

    Raises:
        ShapeError: If lengths differ.
        RangeError: If a size or count is out of range.

    Example:
        >>> loader = DataLoader(np.arange(5), batch_size=2)
        >>> [batch.tolist() for batch in loader], len(loader)
        ([[0, 1], [2, 3], [4]], 3)
    """

    def __init__(
        self,
        X: Any,
        y: Any = None,
        *,
        batch_size: BatchSize = 32,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        prefetch: int = 0,
        prefetch_bytes: int | None = None,
        sampler: Sampler | None = None,
        pad: bool = False,
        reuse_buffers: bool = False,
    ) -> None:
        several = isinstance(X, tuple)
        self._x: list[Source] = [
            source_of(f"X[{i}]", part) for i, part in enumerate(X)
        ] if several else [source_of("X", X)]  # fmt: skip
        if not self._x:
            raise ShapeError("X must hold at least one source, got an empty tuple")
        self._y = None if y is None else source_of("y", y)
        self._several = several
        check_batch_size(batch_size)
        self.batch_size, self.shuffle, self.drop_last = batch_size, shuffle, drop_last
        self.seed, self.prefetch = count("seed", seed, least=0), count("prefetch", prefetch, least=0)
        self.prefetch_bytes = None if prefetch_bytes is None else count("prefetch_bytes", prefetch_bytes)
        if sampler is not None and shuffle:
            raise RangeError("shuffle must be False where a sampler gives the order, got True")
        self._sampler = sampler
        sources = [*self._x, *([] if self._y is None else [self._y])]
        self.samples = len(self._x[0])
        for number, source in enumerate(sources):
            if len(source) != self.samples:
                name = "y" if number == len(self._x) else f"X[{number}]"
                raise ShapeError(f"{name} must have as many samples as X, {self.samples}, got {len(source)}")
        if (pad or reuse_buffers) and not all(isinstance(s, ArraySource) for s in sources):
            raise NotSupportedError("pad and reuse_buffers need arrays, got a frame or a dataset")
        self.pad, self.reuse_buffers = pad, reuse_buffers
        self._row_bytes = sum(s.row_bytes for s in sources)
        self._next = Position(0)
        self._current: Position | None = None

    @property
    def epoch(self) -> int:
        """The number of the epoch that the next iteration is."""
        return self._next.epoch

    def __len__(self) -> int:
        """Batches of a whole epoch: the running one's, or else the next one's."""
        epoch = (self._current or self._next).epoch
        order = self._order(epoch)
        samples = self.samples if order is None else len(order)
        return batch_count(samples, self.batch_size, epoch, drop_last=self.drop_last)

    def __iter__(self) -> Epoch:
        return self._start()

    def __aiter__(self) -> Epoch:
        return self._start()

    def state_dict(self) -> dict[str, int]:
        """Where the iteration that was started last stands: JSON, and only what has been received.

        A loader over the same data that loads it goes on with exactly the batches that are left, also with
        another `prefetch`, another number of threads or (from there on) another batch size.
        """
        now = self._current or self._next
        return {
            "version": 1,
            "seed": self.seed,
            "length": self.samples,
            "shuffle": int(self.shuffle),
            "epoch": now.epoch,
            "samples": now.samples,
            "batches": now.batches,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration go on where `state` was taken. Iterations under way are not touched.

        Raises:
            RangeError: If the state is that of other data or another order.
        """
        own = self.state_dict()
        for name in ("version", "seed", "length", "shuffle"):
            if state.get(name) != own[name]:
                raise RangeError(f"state's {name} must be {own[name]}, got {state.get(name)!r}")
        self._next = Position(
            *(count(f"state's {name}", state[name], least=0) for name in ("epoch", "samples", "batches"))
        )
        self._current = None

    def _start(self) -> Epoch:
        now = self._current = self._next
        epoch = now.epoch
        self._next = Position(epoch + 1)
        order = self._order(epoch)
        total = self.samples if order is None else len(order)
        plan = batches(
            total, self.batch_size, epoch, drop_last=self.drop_last, start=now.samples, first=now.batches
        )
        return Epoch(
            now,
            plan,
            _Gather(self, epoch, order),
            ahead=self.prefetch,
            size_of=lambda rows: rows * self._row_bytes,
            bytes_ahead=self.prefetch_bytes,
            finished=lambda: self._ended(now),
        )

    def _ended(self, position: Position) -> None:
        if self._current is position:
            self._current = None

    def _order(self, epoch: int) -> Array | None:
        if self._sampler is not None:
            order = self._sampler(epoch) if callable(self._sampler) else self._sampler
            return checked_order(order, self.samples)
        return permutation(self.samples, self.seed, epoch) if self.shuffle else None


class _Gather:
    """Batch number, start and stop to the batch; runs on any thread."""

    def __init__(self, loader: DataLoader, epoch: int, order: Array | None) -> None:
        self.x, self.y, self.several = loader._x, loader._y, loader._several
        self.epoch, self.order, self.pad, self.size = epoch, order, loader.pad, loader.batch_size
        self.buffers: list[list[Array]] | None = None
        if loader.reuse_buffers:
            sizes = loader.batch_size
            listed = isinstance(sizes, int) or callable(sizes)
            most = batch_size_at(sizes, epoch, 0) if listed else max(sizes)  # type: ignore[arg-type]
            parts = [s for s in (*self.x, self.y) if isinstance(s, ArraySource)]
            self.buffers = [[s.buffer(most) for s in parts] for _ in range(max(1, loader.prefetch) + 1)]

    def __call__(self, number: int, start: int, stop: int) -> Any:
        full = batch_size_at(self.size, self.epoch, number) if self.pad else stop - start
        room = None if self.buffers is None else self.buffers[number % len(self.buffers)]
        parts = [
            self._part(source, start, stop, full, None if room is None else room[place])
            for place, source in enumerate((*self.x, *([] if self.y is None else [self.y])))
        ]
        x = tuple(parts[: len(self.x)]) if self.several else parts[0]
        batch = (x,) if self.y is None else (x, parts[-1])
        if self.pad:
            batch = (*batch, np.arange(full) < stop - start)
        return batch if len(batch) > 1 else x

    def _part(self, source: Source, start: int, stop: int, full: int, room: Array | None) -> Any:
        if isinstance(source, ArraySource) and (room is not None or full > stop - start):
            out = source.buffer(full) if room is None else room[:full]
            out[stop - start :] = 0
            target = out[: stop - start]
            if self.order is None:
                target[...] = source.array[start:stop]
            else:
                source.take(self.order[start:stop], target)
            return out
        if self.order is None:
            return source.rows(start, stop)
        return source.take(self.order[start:stop])
