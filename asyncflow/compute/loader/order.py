"""Which samples come when: pure functions of (seed, epoch), so nothing of it needs to be saved.

The seed and the epoch enter a SeedSequence as two numbers. Their sum would make epoch 1 of seed 1 the same
as epoch 0 of seed 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from asyncflow.compute.checks import Array, count
from asyncflow.errors import DtypeError, RangeError, ShapeError

#: A fixed size; the sizes of the batches in turn, the last one repeated; or a function of the epoch.
BatchSize = int | Sequence[int] | Callable[[int], int]
#: From the epoch to the samples in order, or one fixed order.
Sampler = Callable[[int], Any] | Sequence[int] | Array


def permutation(samples: int, seed: int, epoch: int) -> Array:
    """All samples in the order of one epoch.

    Example:
        >>> permutation(5, 0, 0).tolist() == permutation(5, 0, 0).tolist()
        True
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
    return rng.permutation(samples)


def weighted_sampler(weights: Any, samples: int, *, seed: int = 0) -> Callable[[int], Array]:
    """A sampler that draws with replacement, each sample in proportion to its weight.

    Args:
        weights: One number of at least 0 per sample, not all 0.
        samples: Draws per epoch.
        seed: The draws of an epoch follow from (seed, epoch).

    Example:
        >>> weighted_sampler([0.0, 1.0], 3)(0)
        array([1, 1, 1])
    """
    share = np.asarray(weights, np.float64)
    if share.ndim != 1 or not (np.isfinite(share) & (share >= 0)).all() or not share.sum() > 0:
        raise RangeError("weights must be a vector of finite numbers of at least 0, not all 0")
    ends = np.cumsum(share)
    count("samples", samples)

    def draw(epoch: int) -> Array:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch, 1])))
        places = np.searchsorted(ends, rng.random(samples) * ends[-1], side="right")
        return np.asarray(np.minimum(places, len(share) - 1))

    return draw


def checked_order(order: Any, samples: int) -> Array:
    """What a sampler gave, as indices in range."""
    index = np.asarray(order)
    if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
        raise DtypeError(f"sampler must give a vector of integers, got {index.dtype} of shape {index.shape}")
    index = index.astype(np.int64)
    if index.size and (index.min() < 0 or index.max() >= samples):
        raise RangeError(f"sampler must give indices in [0, {samples}), got {index.min()} to {index.max()}")
    return index


def check_batch_size(size: BatchSize) -> None:
    """Refuse what can be refused before an epoch begins."""
    if callable(size):
        return
    if isinstance(size, (int, np.integer)) or not isinstance(size, (Sequence, np.ndarray)):
        count("batch_size", size)
        return
    if len(size) == 0:
        raise ShapeError("batch_size must hold at least one size, got an empty list")
    for each in size:
        count("batch_size", each)


def batch_size_at(size: BatchSize, epoch: int, batch: int) -> int:
    """How many samples batch number `batch` of an epoch has, unless the samples run out."""
    if callable(size):
        return count(f"batch_size({epoch})", size(epoch))
    if isinstance(size, (int, np.integer)):
        return int(size)
    return int(size[min(batch, len(size) - 1)])


def batches(
    samples: int, size: BatchSize, epoch: int, *, drop_last: bool, start: int = 0, first: int = 0
) -> Iterator[tuple[int, int, int]]:
    """(number, start, stop) of each batch from sample `start` and batch `first` on.

    Example:
        >>> list(batches(7, [1, 3], 0, drop_last=False))
        [(0, 0, 1), (1, 1, 4), (2, 4, 7)]
    """
    number = first
    while start < samples:
        wanted = batch_size_at(size, epoch, number)
        stop = min(start + wanted, samples)
        if drop_last and stop - start < wanted:
            return
        yield number, start, stop
        number, start = number + 1, stop


def batch_count(samples: int, size: BatchSize, epoch: int, *, drop_last: bool) -> int:
    """How many batches an epoch has."""
    if isinstance(size, (int, np.integer)) or callable(size):
        each = batch_size_at(size, epoch, 0)
        return samples // each if drop_last else -(-samples // each)
    return sum(1 for _ in batches(samples, size, epoch, drop_last=drop_last))
