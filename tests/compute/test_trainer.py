"""Training: exact accumulation, exact resume, equal bits in every mode, early stopping."""

from __future__ import annotations

import asyncio
import math
from functools import partial

import numpy as np
import pytest

from asyncflow.compute import (
    SGD,
    AdamW,
    BatchNorm,
    DataLoader,
    Dropout,
    Linear,
    LossScale,
    Parameter,
    ReLU,
    Sequential,
    Trainer,
    accuracy,
    cross_entropy,
    cross_entropy_with_grad,
    doubling,
    mse_loss_with_grad,
    warmup_cosine,
    workers,
)
from asyncflow.errors import RangeError, ShapeError

rng = np.random.default_rng(3)
X = rng.standard_normal((50, 6)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)


def model(dtype=np.float32, norm=True):
    make = np.random.default_rng(7)
    middle = [BatchNorm(16, dtype=dtype), ReLU(), Dropout(0.2)] if norm else [ReLU()]
    return Sequential(Linear(6, 16, rng=make, dtype=dtype), *middle, Linear(16, 2, rng=make, dtype=dtype))


def trainer(accumulate=3, net=None, **options):
    net = net or model()
    rate = warmup_cosine(0.05, warmup=3, total=60)
    return Trainer(
        net,
        cross_entropy_with_grad,
        AdamW(net.parameters(), rate),
        accumulate=accumulate,
        clip_norm=1.0,
        **options,
    )


def loader(**options):
    return DataLoader(X, Y, **{"batch_size": 8, "shuffle": True, "seed": 4, **options})


def bits(trained):
    return {name: a.copy() for name, a in trained.model.arrays().items()}


def assert_equal_bits(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("weight", [None, np.array([0.3, 2.5])])
@pytest.mark.parametrize("wrap", ["partial", "lambda"])
def test_small_batches_add_up_to_the_large_one(weight, wrap):
    """Ragged batches, class weights, ignored rows: the step is that of one batch, and so is the loss."""
    x, y = X.astype(np.float64), Y.copy()
    y[::7] = -100
    loss = partial(cross_entropy_with_grad, weight=weight)
    if wrap == "lambda":
        loss = lambda p, t: cross_entropy_with_grad(p, t, weight=weight)  # noqa: E731
    results = []
    for sizes, accumulate in ([[50], 1], [[20, 7, 20], 9], [[13], 4]):
        net = model(np.float64, norm=False)
        run = Trainer(net, loss, SGD(net.parameters(), 0.1), accumulate=accumulate)
        results.append((run.train_epoch(DataLoader(x, y, batch_size=sizes)), bits(run)))
    for value, state in results[1:]:
        assert value == pytest.approx(results[0][0], rel=1e-12)
        for name, array in state.items():
            if name != "steps":
                np.testing.assert_allclose(array, results[0][1][name], rtol=1e-12, atol=1e-14)


def test_the_mean_is_over_samples():
    """A last batch of one counts as one sample, in training and in evaluation."""
    net = model(np.float64, norm=False)
    x = X[:33].astype(np.float64)
    run = Trainer(net, cross_entropy_with_grad, SGD(net.parameters(), 0.0))
    wanted = cross_entropy(net(x), Y[:33])
    assert run.train_epoch(DataLoader(x, Y[:33], batch_size=32)) == pytest.approx(wanted, rel=1e-12)
    assert run.evaluate(DataLoader(x, Y[:33], batch_size=32)) == pytest.approx(wanted, rel=1e-12)
    got = run.evaluate(DataLoader(x, Y[:33], batch_size=32), metric=accuracy)
    assert got == pytest.approx((net(x).argmax(axis=1) == Y[:33]).mean())


def test_a_last_small_group_makes_a_step():
    """7 batches in groups of 3 are 3 steps; nothing leaks into the next epoch."""
    run = trainer(accumulate=3)
    run.train_epoch(loader())
    assert run.optimizer.steps == 3
    assert not any(p.grad.any() for p in run.optimizer.parameters)


def test_sequential_parallel_and_awaited_have_equal_bits():
    """workers 1, 2, 3, prefetch, and the awaitable form: the same losses and the same arrays, bit by bit."""

    def run(n, prefetch, awaited):
        trained = trainer()
        data = loader(prefetch=prefetch)
        with workers(n):
            if awaited:
                records = asyncio.run(trained.fit_async(data, epochs=3, validation=loader()))
            else:
                records = trained.fit(data, epochs=3, validation=loader())
        return [(r.loss, r.validation_loss) for r in records], bits(trained)

    wanted = run(1, 0, False)
    for case in [(2, 0, False), (3, 2, False), (1, 0, True), (2, 3, True)]:
        losses, arrays = run(*case)
        assert losses == wanted[0]
        assert_equal_bits(arrays, wanted[1])


class Killed(Exception):
    pass


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("kill", [1, 3, 5, 7, 8, 12, 14])
def test_resume_in_the_middle_is_exact(kill, awaited, tmp_path):
    """Stopped after any batch, a fresh trainer goes on to the same bits, inside groups and at epoch ends."""
    whole = trainer()
    whole.fit(loader(prefetch=2), epochs=3)
    path = tmp_path / "run.npz"

    def stop(now):
        if now.steps.batches == kill:
            now.save(path)
            raise Killed

    first = trainer(on_batch=stop)
    with pytest.raises(Killed):
        if awaited:
            asyncio.run(first.fit_async(loader(prefetch=2), epochs=3))
        else:
            first.fit(loader(prefetch=2), epochs=3)
    second = trainer()
    for p in second.optimizer.parameters:
        p.value += 1  # whatever it was made with is replaced
    second.load(path)
    if awaited:
        asyncio.run(second.fit_async(loader(), epochs=3))
    else:
        second.fit(loader(), epochs=3)
    assert_equal_bits(bits(second), bits(whole))
    assert [r.loss for r in second.history] == [r.loss for r in whole.history]
    assert second.optimizer.steps == whole.optimizer.steps


def test_cancelled_training_can_be_saved_and_goes_on(tmp_path):
    """A cancelled await lets the running batch end; saved there and resumed, the bits are the same."""
    whole = trainer()
    whole.fit(loader(), epochs=2)

    async def main():
        reached = asyncio.Event()
        loop = asyncio.get_running_loop()

        def tell(now):
            if now.steps.batches == 9:
                loop.call_soon_threadsafe(reached.set)

        run = trainer(on_batch=tell)
        task = asyncio.ensure_future(run.fit_async(loader(prefetch=2), epochs=2))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await run.save_async(tmp_path / "run")

    asyncio.run(main())
    second = trainer()
    second.load(tmp_path / "run")
    second.fit(loader(), epochs=2)
    assert_equal_bits(bits(second), bits(whole))


def test_early_stopping(tmp_path):
    """Training ends after `patience` epochs without progress and the best model comes back; resumed too."""
    net = model()
    run = Trainer(
        net, cross_entropy_with_grad, SGD(net.parameters(), lambda step: 0.1 if step < 14 else -3.0)
    )
    records = run.fit(loader(), epochs=50, validation=loader(), patience=2, checkpoint=tmp_path / "c")
    assert 4 <= len(records) < 50
    best = min(r.validation_loss for r in records)
    assert run.evaluate(loader()) == pytest.approx(best)
    again = model()
    second = Trainer(again, cross_entropy_with_grad, SGD(again.parameters(), 0.1))
    second.load(tmp_path / "c")
    second.fit(loader(), epochs=50, validation=loader(), patience=2)
    assert second.evaluate(loader()) == pytest.approx(best)


@pytest.mark.parametrize("awaited", [False, True])
def test_early_stopping_options(awaited):
    """Progress below `min_delta` does not count; `restore_best=False` keeps the last model."""
    net = model()
    run = Trainer(net, cross_entropy_with_grad, SGD(net.parameters(), 0.01))
    options = {"epochs": 30, "validation": loader(), "patience": 3, "min_delta": 10.0, "restore_best": False}
    if awaited:
        records = asyncio.run(run.fit_async(loader(), **options))
        last = asyncio.run(run.evaluate_async(loader()))
    else:
        records, last = run.fit(loader(), **options), run.evaluate(loader())
    assert len(records) == 4  # the first is the best, and three more
    assert last == pytest.approx(records[-1].validation_loss) != records[0].validation_loss


def test_resume_with_growing_batches_and_a_loss_scale(tmp_path):
    """What else a run depends on goes on too: sizes by epoch, scale, momentum, skipped steps."""

    def make(**options):
        net = model(np.float16)
        rule = SGD(net.parameters(), 0.02, momentum=0.9, nesterov=True, weight_decay=1e-3)
        scale = LossScale(2.0**20, interval=3)
        return Trainer(net, cross_entropy_with_grad, rule, loss_scale=scale, accumulate=2, **options)

    def data():
        sizes = doubling(5, maximum=20, every=1)
        return DataLoader(X.astype(np.float16), Y, batch_size=sizes, shuffle=True, drop_last=True)

    whole = make()
    whole.fit(data(), epochs=3)

    def stop(now):
        if now.steps.batches == 13:
            now.save(tmp_path / "run")
            raise Killed

    with pytest.raises(Killed):
        make(on_batch=stop).fit(data(), epochs=3)
    second = make()
    asyncio.run(second.load_async(tmp_path / "run"))
    second.fit(data(), epochs=3)
    assert_equal_bits(bits(second), bits(whole))
    assert second.steps.loss_scale.scale == whole.steps.loss_scale.scale
    assert second.optimizer.steps == whole.optimizer.steps


def test_float16_with_loss_scaling():
    """A float16 model learns with a scaled loss; steps that overflow are skipped and do not count."""
    net = model(np.float16)
    scale = LossScale(2.0**24)
    run = Trainer(net, cross_entropy_with_grad, AdamW(net.parameters(), 0.05), loss_scale=scale)
    data = DataLoader(X.astype(np.float16), Y, batch_size=10)
    first = run.train_epoch(data)
    assert scale.skipped > 0 and run.optimizer.steps == 5 - scale.skipped
    for _ in range(15):
        last = run.train_epoch(data)
    assert last < first / 2 and all(np.isfinite(p.value).all() for p in net.parameters())


def test_a_batch_without_counted_rows_changes_nothing():
    """If every row is ignored there is no loss and no step; statistics of a mean of nothing are NaN."""
    run = trainer(accumulate=1)
    assert math.isnan(run.train_epoch(DataLoader(X[:4], np.full(4, -100))))
    assert run.optimizer.steps == 0


def test_a_loss_of_ones_own():
    """Any function of prediction and target; without a noted divisor a batch counts by its rows."""
    net = Sequential(Linear(6, 1, rng=np.random.default_rng(0), dtype=np.float64))

    def own(prediction, target):
        difference = prediction - target
        return float((difference**2).mean()), 2 * difference / difference.size

    losses = []
    for loss in (own, mse_loss_with_grad):
        net.layers[0].weight.value[...] = 0
        run = Trainer(net, loss, SGD(net.parameters(), 0.1), accumulate=2)
        losses.append(run.train_epoch(DataLoader(X.astype(float), Y[:, None].astype(float), batch_size=7)))
        net.layers[0].bias.value[...] = 0
    net.layers[0].weight.value[...] = 0
    assert np.isfinite(losses).all()


def test_refusals(tmp_path):
    """Loaders without pairs, losses that are not means, files of something else, bad counts."""
    run = trainer()
    with pytest.raises(ShapeError, match=r"pairs \(x, y\), got ndarray"):
        run.train_epoch(DataLoader(X))
    bad = Trainer(run.model, partial(cross_entropy_with_grad, reduction="none"), run.optimizer)
    with pytest.raises(RangeError, match="one number and a gradient"):
        bad.train_epoch(loader())
    with pytest.raises(RangeError, match="accumulate"):
        trainer(accumulate=0)
    with pytest.raises(RangeError, match="patience"):
        run.fit(loader(), epochs=1, patience=0)
    np.savez(tmp_path / "x.npz", a=np.ones(1))
    with pytest.raises(RangeError, match="must be a checkpoint of version 1, got None"):
        run.load(tmp_path / "x.npz")
    other = Parameter(np.ones(1))
    run.save(tmp_path / "good")
    with pytest.raises(RangeError, match="does not fit"):
        Trainer(model(), cross_entropy_with_grad, SGD([other], 0.1)).load(tmp_path / "good")
    assert [f.name for f in tmp_path.iterdir() if ".tmp" in f.name] == []


def test_accuracy():
    """The share of rows, with shapes that must fit."""
    assert accuracy(np.eye(3), np.array([0, 1, 0])) == pytest.approx(2 / 3)
    with pytest.raises(ShapeError):
        accuracy(np.eye(3), np.ones((3, 1)))


def test_a_loss_without_a_gradient_is_named():
    """cross_entropy where cross_entropy_with_grad belongs."""
    net = model()
    with pytest.raises(RangeError, match="as cross_entropy_with_grad does; cross_entropy returned one float"):
        Trainer(net, cross_entropy, SGD(net.parameters(), 0.1)).train_epoch(DataLoader(X, Y))
