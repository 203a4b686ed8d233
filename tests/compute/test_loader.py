"""The loader: every sample once, in an order that follows from (seed, epoch), resumed exactly."""

from __future__ import annotations

import asyncio
import json
import threading

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncflow.compute import DataLoader, doubling, weighted_sampler
from asyncflow.errors import DtypeError, NotSupportedError, RangeError, ShapeError

X = np.arange(20.0).reshape(10, 2)
Y = np.arange(10)


def lists(iterable):
    return [np.asarray(batch).tolist() for batch in iterable]


async def alists(loader):
    return [np.asarray(batch).tolist() async for batch in loader]


def test_pairs_in_order():
    """Without shuffling, rows come in order, the last batch smaller, and len is right."""
    loader = DataLoader(X, Y, batch_size=4)
    got = list(loader)
    assert len(loader) == len(got) == 3
    np.testing.assert_array_equal(np.concatenate([x for x, _ in got]), X)
    assert [len(y) for _, y in got] == [4, 4, 2]
    assert [len(y) for _, y in DataLoader(X, Y, batch_size=4, drop_last=True)] == [4, 4]


def test_batches_belong_to_the_user():
    """Writing to a batch changes neither the data nor another batch, with prefetch too."""
    data = X.copy()
    for prefetch in (0, 2):
        for batch in DataLoader(data, batch_size=3, prefetch=prefetch):
            batch[:] = -1
    np.testing.assert_array_equal(data, X)


def test_each_iteration_is_the_next_epoch():
    """Epochs differ, repeat with the seed, hold every sample once, and do not follow seed + epoch."""
    loader = DataLoader(Y, batch_size=3, shuffle=True, seed=1)
    epochs = [sum(lists(loader), []) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert all(sorted(e) == list(range(10)) for e in epochs)
    again = DataLoader(Y, batch_size=3, shuffle=True, seed=1)
    assert [sum(lists(again), []) for _ in range(3)] == epochs
    assert sum(lists(DataLoader(Y, shuffle=True, seed=2)), []) != epochs[1]


def test_two_iterations_at_once_are_two_epochs():
    """Interleaved iterations do not disturb each other."""
    alone = DataLoader(Y, batch_size=2, shuffle=True)
    first, second = lists(alone), lists(alone)
    both = DataLoader(Y, batch_size=2, shuffle=True)
    pairs = list(zip(both, both))
    assert [a.tolist() for a, _ in pairs] == first
    assert [b.tolist() for _, b in pairs] == second


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_resume_yields_exactly_the_rest(data):
    """Killed after any batch, with any prefetch, the rest of this and the next epoch is the same."""
    draw = data.draw
    n, size = draw(st.integers(0, 30)), draw(st.integers(1, 8))
    options = {
        "batch_size": draw(st.sampled_from([size, [1, size, 2], lambda epoch: size + epoch])),
        "shuffle": draw(st.booleans()),
        "drop_last": draw(st.booleans()),
        "seed": draw(st.integers(0, 5)),
    }
    whole = DataLoader(np.arange(n), **options)
    epochs = [lists(whole), lists(whole)]
    loader = DataLoader(np.arange(n), prefetch=draw(st.integers(0, 3)), **options)
    kill = draw(st.integers(0, len(epochs[0])))
    received = iter(loader)
    got = [next(received).tolist() for _ in range(kill)]
    state = json.loads(json.dumps(loader.state_dict()))
    fresh = DataLoader(np.arange(n), prefetch=draw(st.integers(0, 3)), **options)
    fresh.load_state_dict(state)
    assert got + lists(fresh) == epochs[0]
    assert lists(fresh) == epochs[1]
    received.close()


def test_state_counts_what_was_received_not_what_is_ahead():
    """With four batches prefetched and one received, the state says one."""
    loader = DataLoader(Y, batch_size=2, prefetch=4)
    batches = iter(loader)
    next(batches)
    assert loader.state_dict()["samples"] == 2
    batches.close()
    loader = DataLoader(Y, batch_size=2)
    list(loader)
    assert (loader.state_dict()["epoch"], loader.state_dict()["samples"]) == (1, 0)


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_async_for_is_the_same_order(prefetch):
    """`async for` over the same object gives the same batches."""
    wanted = lists(DataLoader(Y, batch_size=3, shuffle=True))
    loader = DataLoader(Y, batch_size=3, shuffle=True, prefetch=prefetch)
    assert asyncio.run(alists(loader)) == wanted
    assert asyncio.run(alists(loader)) != wanted


def test_async_for_on_trio():
    """The same on trio."""
    trio = pytest.importorskip("trio")
    assert trio.run(alists, DataLoader(Y, batch_size=3, prefetch=1)) == lists(DataLoader(Y, batch_size=3))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_driven_without_a_loop(prefetch):
    """A synchronous flow drives its source without an event loop: the same batches, and the thread waits."""
    coroutine = alists(DataLoader(Y, batch_size=3, prefetch=prefetch))
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    assert ended.value.value == lists(DataLoader(Y, batch_size=3))


class Slow:
    """A dataset whose items wait for permission."""

    def __init__(self):
        self.allow, self.asked = threading.Event(), threading.Event()

    def __len__(self):
        return 6

    def __getitem__(self, i):
        self.asked.set()
        assert self.allow.wait(20)
        return np.float64(i)


def test_a_cancelled_wait_loses_no_batch():
    """Cancelled while a batch is gathered, the next `__anext__` gives that same batch."""

    async def main():
        data = Slow()
        epoch = aiter(DataLoader(data, batch_size=2, prefetch=1))
        waiting = asyncio.ensure_future(anext(epoch))
        await asyncio.to_thread(data.asked.wait, 20)
        waiting.cancel()
        asyncio.get_running_loop().call_later(0.05, data.allow.set)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return [b.tolist() async for b in epoch]

    assert asyncio.run(main()) == [[0, 1], [2, 3], [4, 5]]


def test_an_error_names_the_item_and_can_be_tried_again():
    """An error of the dataset reaches the consumer; the batch is then the next one again."""

    class Flaky:
        broken = True

        def __len__(self):
            return 4

        def __getitem__(self, i):
            if i == 2 and self.broken:
                raise OSError("item 2")
            return i

    for prefetch in (0, 2):
        data = Flaky()
        epoch = iter(DataLoader(data, batch_size=2, prefetch=prefetch))
        assert next(epoch).tolist() == [0, 1]
        with pytest.raises(OSError, match="item 2"):
            next(epoch)
        data.broken = False
        assert lists(epoch) == [[2, 3]]


def test_prefetch_is_bounded_by_batches():
    """Before, between and after batches, no more than `prefetch` are gathered ahead."""
    asked = []

    class Counting:
        def __len__(self):
            return 20

        def __getitem__(self, place):
            raise AssertionError("asked by batch")

        def __getitems__(self, places):
            asked.append(places)
            return [float(i) for i in places]

    epoch = iter(DataLoader(Counting(), batch_size=2, prefetch=3))
    for received in range(1, 11):
        next(epoch)
        assert received <= len(asked) <= received + 3
    assert sorted(i for batch in asked for i in batch) == list(range(20))


def test_prefetch_draws_on_the_budget_of_the_maths():
    """With every place of the budget taken, batches ahead wait, and the consumer gathers its own."""
    from asyncflow.compute import statistics, tiles

    hold = threading.Event()
    busy = [tiles.budget.submit(hold.wait) for _ in range(statistics().limit)]
    try:
        epoch = iter(DataLoader(np.arange(20), batch_size=2, prefetch=3))
        assert next(epoch).tolist() == [0, 1]
        assert statistics().queued == 3
    finally:
        hold.set()
    assert len(list(epoch)) == 9 and all(job.error is None for job in busy)


def test_prefetch_is_bounded_by_bytes():
    """At most `prefetch_bytes` are ahead, and always at least one batch."""
    loader = DataLoader(np.zeros((100, 10)), batch_size=10, prefetch=8, prefetch_bytes=1700)
    batches = iter(loader)
    next(batches)
    assert len(batches._calls) == 2
    assert len(list(batches)) == 9
    assert len(list(DataLoader(np.zeros((100, 10)), batch_size=10, prefetch=8, prefetch_bytes=1))) == 10


def test_sources(tmp_path):
    """Memory maps, frames, several arrays, lists and datasets."""
    np.save(tmp_path / "x.npy", X)
    (batch,) = DataLoader(np.load(tmp_path / "x.npy", mmap_mode="r"), batch_size=10)
    assert type(batch) is np.ndarray and batch.flags.writeable
    frame = pd.DataFrame({"a": Y, "b": Y * 2.0})
    first, second = DataLoader(frame, frame["a"], batch_size=5)
    assert isinstance(first[0], pd.DataFrame) and first[1].tolist() == [0, 1, 2, 3, 4]
    ((x1, x2), y), *_ = DataLoader((X, Y), Y, batch_size=4)
    assert x1.shape == (4, 2) and x2.tolist() == y.tolist() == [0, 1, 2, 3]
    assert lists(DataLoader([1, 2, 3], batch_size=2)) == [[1, 2], [3]]

    class Pairs:
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return {"x": np.full(2, i), "y": i}

    batch, _ = DataLoader(Pairs(), batch_size=2)
    assert batch["x"].shape == (2, 2) and batch["y"].tolist() == [0, 1]

    class Many(Pairs):
        def __getitems__(self, index):
            return [i * 10 for i in index]

    assert lists(DataLoader(Many(), batch_size=2)) == [[0, 10], [20]]


def test_variable_batch_sizes():
    """A list of sizes, the last repeated; and a function of the epoch, the seed's doubling."""
    assert [len(b) for b in DataLoader(Y, batch_size=[1, 2, 3])] == [1, 2, 3, 3, 1]
    loader = DataLoader(Y, batch_size=doubling(2, maximum=8, every=1))
    assert [[len(b) for b in loader] for _ in range(4)] == [[2] * 5, [4, 4, 2], [8, 2], [8, 2]]


def test_padding_and_masks():
    """A last small batch is filled with zeros to full size, and the mask says which rows are samples."""
    for shuffle in (False, True):
        got = list(DataLoader(X + 1, Y + 1, batch_size=4, pad=True, shuffle=shuffle))
        assert [x.shape for x, _, _ in got] == [(4, 2)] * 3
        assert [m.tolist() for _, _, m in got][-1] == [True, True, False, False]
        assert (got[-1][0][2:] == 0).all() and (got[-1][1][:2] > 0).all()


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_reused_buffers(prefetch):
    """A batch is valid until the next is asked for, and memory is that of a few batches."""
    loader = DataLoader(X, Y, batch_size=3, reuse_buffers=True, prefetch=prefetch, shuffle=True)
    plain = DataLoader(X, Y, batch_size=3, shuffle=True)
    seen = set()
    for (x, y), (u, v) in zip(loader, plain):
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(y, v)
        seen.add(x.__array_interface__["data"][0])
    assert len(seen) <= max(1, prefetch) + 1


def test_samplers():
    """Any order of indices; drawing by weight; out of range is refused."""
    assert lists(DataLoader(Y, batch_size=2, sampler=[3, 3, 1])) == [[3, 3], [1]]
    loader = DataLoader(Y, batch_size=4, sampler=lambda epoch: np.arange(epoch + 1))
    assert [sum(lists(loader), []) for _ in range(3)] == [[0], [0, 1], [0, 1, 2]]
    draws = np.concatenate(list(DataLoader(Y, sampler=weighted_sampler([1] * 5 + [3] * 5, 4000))))
    assert (draws >= 5).mean() == pytest.approx(0.75, abs=0.03)
    with pytest.raises(RangeError, match=r"indices in \[0, 10\)"):
        iter(DataLoader(Y, sampler=[10]))
    with pytest.raises(DtypeError, match="vector of integers"):
        iter(DataLoader(Y, sampler=[0.5]))


def test_refusals():
    """Bad sizes, lengths that differ, states of other data: each error names its argument."""
    for size in (0, -1, 2.5, True, [], [2, 0], "8"):
        with pytest.raises((RangeError, ShapeError), match="batch_size"):
            DataLoader(X, batch_size=size)
    with pytest.raises(ShapeError, match="y must have as many samples as X, 10, got 9"):
        DataLoader(X, Y[:9])
    with pytest.raises(ShapeError, match="first axis"):
        DataLoader(np.array(1.0))
    with pytest.raises(DtypeError, match="__getitem__"):
        DataLoader(iter([1]))
    with pytest.raises(RangeError, match="prefetch"):
        DataLoader(X, prefetch=-1)
    with pytest.raises(RangeError, match="shuffle must be False where a sampler"):
        DataLoader(X, shuffle=True, sampler=[0])
    with pytest.raises(NotSupportedError, match="pad"):
        DataLoader(pd.DataFrame({"a": Y}), pad=True)
    state = DataLoader(X, seed=1).state_dict()
    with pytest.raises(RangeError, match="state's seed must be 0, got 1"):
        DataLoader(X).load_state_dict(state)


def test_a_dropped_epoch_leaves_nothing_behind():
    """Breaking out of a prefetching loop leaves no queued work."""
    from asyncflow.compute import statistics

    for batch in DataLoader(np.zeros((1000, 1000)), batch_size=10, prefetch=50):
        break
    del batch
    assert statistics().queued == 0
