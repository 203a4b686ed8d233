"""Large results: their memory is used again, and never while somebody has them."""

import gc
import math

import numpy as np
import pytest

from asyncflow import compute
from asyncflow.compute import memory
from asyncflow.compute.columns import per_channel
from asyncflow.compute.scratch import scratch


@pytest.fixture(autouse=True)
def nothing_kept():
    gc.collect()
    memory._blocks.clear()
    yield
    gc.collect()
    memory._blocks.clear()


def address(x):
    return x.__array_interface__["data"][0]


def test_memory_of_a_dropped_result_is_used_for_the_next_one():
    """The second result of a size stands where the first one stood."""
    x = np.ones((512, 1024), np.float32)
    first = compute.softmax(x)
    place = address(first)
    del first
    assert address(compute.softmax(x)) == place


@pytest.mark.parametrize(
    "view", [lambda y: y[3], lambda y: y.T, lambda y: memoryview(y), lambda y: y[:, ::2]]
)
def test_a_view_keeps_the_memory(view):
    """As long as any view of a result lives, later results do not touch it."""
    x = np.random.default_rng(0).standard_normal((512, 1024)).astype(np.float32)
    kept = view(compute.softmax(x))
    before = np.array(kept)
    for _ in range(3):
        compute.softmax(-x)
    assert np.array_equal(np.asarray(kept), before)


def test_little_is_kept():
    """What waits for its next use is bounded, and a block beyond the bound is given back at once."""
    results = [memory.fresh((5 << 20,), np.dtype(np.float32)) for _ in range(8)]
    huge = memory.fresh((memory.KEPT_BYTES + 1,), np.dtype(np.uint8))
    del results, huge
    gc.collect()
    assert 0 < sum(b.nbytes for b in memory._blocks) <= memory.KEPT_BYTES


def test_while_the_program_ends_nothing_is_given_back():
    """The names of the module may be gone by then, and a finalizer that fails writes into the terminal."""
    loan = memory._Loan(np.empty(2 << 20, np.uint8), (2 << 20,), np.dtype(np.uint8))
    loan.__del__(lambda: True)
    assert not memory._blocks
    del loan
    assert len(memory._blocks) == 1


def test_a_block_much_too_large_is_not_taken():
    """A result does not hold on to more than twice its size."""
    large = memory.fresh((8 << 20,), np.dtype(np.float32))
    del large
    small = memory.fresh((1 << 20,), np.dtype(np.float32))
    assert small.base._block.nbytes == small.nbytes


@pytest.mark.parametrize("shape", [(), (0,), (3,), (7, 5), (1024, 1024)])
def test_what_is_read_again_and_again_begins_at_a_line(shape):
    """`aligned`, large results, a tile's buffers, gradients and the numbers per channel of a batch norm."""
    f = np.dtype(np.float32)
    made = [memory.aligned(shape, f), scratch(shape, f), compute.Parameter(np.zeros(shape, f)).grad]
    if math.prod(shape) * f.itemsize >= memory.LEAST_BYTES:
        made.append(memory.fresh(shape, f))
    for x in made:
        assert x.shape == shape and x.flags.writeable and address(x) % memory.LINE == 0
    for row in per_channel([np.ones(5), np.zeros(5)], np.empty((3, 5), f), f):
        assert row.shape == (5,) and address(row) % memory.LINE == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, ">f4"])
def test_results_are_ordinary_arrays(dtype):
    """Any floating dtype, writeable, contiguous, aligned."""
    x = memory.fresh((1024, 1024), np.dtype(dtype))
    assert x.dtype == dtype and x.shape == (1024, 1024)
    assert x.flags.writeable and x.flags.c_contiguous and x.flags.aligned
