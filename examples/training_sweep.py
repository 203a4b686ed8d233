"""A hyper-parameter sweep: batches of pixels through a `BatchNode`, then one training per setting, at once.

Shows `compute` in flows. A `BatchNode` takes NumPy batches straight from a `DataLoader` and hands on the mean
and deviation of the pixels; a batch flow repeats a training for every setting, in turn (`BatchFlow`) and at
the same time on threads (`AsyncParallelBatchFlow`). The trained weights of both are equal bit for bit.

    pip install scikit-learn
    python examples/training_sweep.py [epochs, 8 by default]
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from asyncflow import AsyncParallelBatchFlow, BatchFlow, BatchNode, Flow, Node
from asyncflow.compute import (
    AdamW,
    BatchNorm,
    DataLoader,
    Dropout,
    Linear,
    ReLU,
    Sequential,
    Trainer,
    accuracy,
    cross_entropy_with_grad,
)

SETTINGS = [{"rate": rate, "dropout": dropout} for rate in (0.003, 0.03) for dropout in (0.0, 0.3)]


class PixelStatistics(BatchNode):
    """Mean and deviation over all batches, from each batch's count, sum and sum of squares."""

    def prep(self, shared: dict[str, Any]) -> DataLoader:
        return DataLoader(shared["x"], batch_size=256)

    def exec(self, batch: np.ndarray) -> np.ndarray:
        wide = batch.astype(np.float64)
        return np.array([wide.size, wide.sum(), (wide**2).sum()])

    def post(self, shared: dict[str, Any], prep_res: Any, sums: list[np.ndarray]) -> None:
        count, total, squares = np.sum(sums, axis=0)
        mean = total / count
        deviation = np.sqrt(squares / count - mean**2)
        for name in ("x", "x_test"):
            shared[name] = ((shared[name] - mean) / deviation).astype(np.float32)


class Train(Node):
    """One training with the setting in `params`; a plain `exec`, so a flow may put it on a thread."""

    def prep(self, shared: dict[str, Any]) -> dict[str, Any]:
        return {**shared, **self.params}

    def exec(self, asked: dict[str, Any]) -> tuple[float, Sequential]:
        rng = np.random.default_rng(0)
        model = Sequential(
            Linear(64, 64, rng=rng), BatchNorm(64), ReLU(), Dropout(asked["dropout"]), Linear(64, 10, rng=rng)
        )
        trainer = Trainer(model, cross_entropy_with_grad, AdamW(model.parameters(), asked["rate"]))
        trainer.fit(DataLoader(asked["x"], asked["y"], batch_size=64, shuffle=True), epochs=asked["epochs"])
        test = DataLoader(asked["x_test"], asked["y_test"], batch_size=512)
        return trainer.evaluate(test, metric=accuracy), model

    def post(self, shared: dict[str, Any], prep_res: Any, trained: tuple[float, Sequential]) -> None:
        shared["results"][self.params["rate"], self.params["dropout"]] = trained


class Sweep(BatchFlow):
    """`shared`: reads the data and "epochs", adds a pair (accuracy, model) per setting to "results"."""

    def prep(self, shared: dict[str, Any]) -> list[dict[str, Any]]:
        return SETTINGS


class SweepAtOnce(Sweep, AsyncParallelBatchFlow):
    """The same settings, up to `concurrency` at a time, each on a thread."""

    offload = True


def main(epochs: int = 8, concurrency: int = 2) -> dict[str, Any]:
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.data))
    x, y = digits.data[order], digits.target[order]
    shared: dict[str, Any] = {"epochs": epochs, "x": x[:1437], "y": y[:1437], "x_test": x[1437:]}
    shared["y_test"] = y[1437:]
    Flow(start=PixelStatistics()).run(shared)
    in_turn, at_once = shared | {"results": {}}, shared | {"results": {}}
    Sweep(start=Flow(start=Train())).run(in_turn)
    sweep = SweepAtOnce(start=Flow(start=Train()), concurrency=concurrency)
    asyncio.run(sweep.run_async(at_once))
    equal = True
    for (rate, dropout), (share, model) in in_turn["results"].items():
        other = at_once["results"][rate, dropout][1].state_dict()
        equal &= all(np.array_equal(other[name], array) for name, array in model.state_dict().items())
        print(f"learning rate {rate:<5} dropout {dropout:<3}: {share:.1%} of the test digits")
    print(f"in turn and at once, equal bits: {'yes' if equal else 'NO'}")
    accuracies = {setting: share for setting, (share, _) in in_turn["results"].items()}
    return {"accuracies": accuracies, "equal": equal, "mean": float(shared["x"].mean())}


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
