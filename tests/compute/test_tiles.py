"""Tiles: a plan that does not know the threads, equal bits, errors, and who waits for whom."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow import compute
from asyncflow.compute import tiles
from asyncflow.compute.settings import threads
from asyncflow.errors import RangeError


@given(st.integers(0, 5000), st.integers(1, 1 << 22))
def test_a_plan_covers_every_row_once(rows, row_bytes):
    """Tiles follow one another without a gap, none is empty, and sizes differ by at most one row."""
    cut = tiles.plan(rows, row_bytes)
    assert [i for s in cut for i in (s.start, s.stop)] == sorted(i for s in cut for i in (s.start, s.stop))
    sizes = [s.stop - s.start for s in cut]
    assert sum(sizes) == rows and all(sizes)
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert all(n == 1 or n * row_bytes < 2 * tiles.TILE_BYTES for n in sizes)


OPERATIONS = {
    "softmax": lambda x, y: compute.softmax(x),
    "softmax on axis 0": lambda x, y: compute.softmax(x, 0),
    "log_softmax": lambda x, y: compute.log_softmax(x),
    "sigmoid": lambda x, y: compute.sigmoid(x),
    "gelu": lambda x, y: compute.gelu(x),
    "mse": lambda x, y: compute.mse_loss_with_grad(x, x[::-1]),
    "cross_entropy": lambda x, y: compute.cross_entropy_with_grad(x, y),
    "smoothed": lambda x, y: compute.cross_entropy_with_grad(x, y, label_smoothing=0.1),
}


@pytest.fixture
def small_tiles(monkeypatch):
    """Many tiles from small arrays."""
    monkeypatch.setattr(tiles.plan, "__kwdefaults__", {"tile_bytes": 4096})


@pytest.mark.parametrize("name", OPERATIONS)
def test_equal_bits_for_any_number_of_workers(name, rng, small_tiles, kernel):
    """1 to 8 workers: array_equal, in float32 and float64, for values and gradients."""
    for dtype in (np.float32, np.float64):
        x, y = rng.standard_normal((211, 37)).astype(dtype), rng.integers(0, 37, 211)
        wanted = OPERATIONS[name](x, y)
        for n in (1, 2, 3, 4, 8):
            with compute.workers(n):
                got = OPERATIONS[name](x, y)
            for a, b in zip(got, wanted) if isinstance(got, tuple) else [(got, wanted)]:
                np.testing.assert_array_equal(a, b)


def test_workers_really_work_beside_each_other(small_tiles):
    """With workers(2), two tiles run at the same time."""
    met = threading.Barrier(2, timeout=20)
    with compute.workers(2):
        tiles.run_tiles(lambda _: met.wait(), 2)


def test_a_tile_runs_operations_on_its_own_thread():
    """An operation called inside a tile does not ask for threads again."""
    seen = set()

    def task(_):
        here = threading.get_ident()
        tiles.run_tiles(lambda _: seen.add(here == threading.get_ident()), 4)

    with compute.workers(4):
        tiles.run_tiles(task, 4)
    assert seen == {True}


def test_a_busy_budget_does_not_block(monkeypatch):
    """If no helper is free the caller does all the work, and takes back what it had asked for."""
    hold = threading.Event()
    from asyncflow.threads import ThreadPool

    monkeypatch.setattr(tiles, "budget", ThreadPool(1))
    busy = tiles.budget.submit(hold.wait)
    try:
        done = []
        with compute.workers(3):
            tiles.run_tiles(done.append, 5)
        assert done == [0, 1, 2, 3, 4]
        assert tiles.budget.statistics().queued == 0
    finally:
        hold.set()
    assert busy.error is None


@pytest.mark.parametrize("n", [1, 3])
def test_the_error_of_a_tile_reaches_the_caller(n):
    """A tile that raises ends the operation, once no tile runs any more."""
    running = []

    def task(index):
        running.append(index)
        try:
            if index == 2:
                raise KeyError("tile 2")
        finally:
            running.remove(index)

    with compute.workers(n), pytest.raises(KeyError, match="tile 2"):
        tiles.run_tiles(task, 40)
    assert not running


def test_errstate_is_the_callers_again_afterwards():
    """Flags are ignored inside an operation, and the caller's own setting stays."""
    with np.errstate(all="raise"):
        compute.softmax(np.array([-np.inf, -np.inf]))
        with pytest.raises(FloatingPointError):
            np.float64(0) / np.float64(0)


@pytest.mark.parametrize("n", [0, -1, 1.0, True, "2"])
def test_workers_needs_a_count(n):
    """Anything but an integer of at least 1 is refused."""
    with pytest.raises(RangeError, match="workers"):
        with compute.workers(n):
            pass


def test_workers_is_a_block():
    """The number holds inside the block only, nested blocks included."""
    with compute.workers(3):
        with compute.workers(1):
            assert threads() == 1
        assert threads() == 3
    assert threads() == 1


def test_kernels_knows_two_names():
    """An unknown name is refused; it is never a silent fallback."""
    with pytest.raises(RangeError, match="numpy"):
        with compute.kernels("torch"):
            pass
