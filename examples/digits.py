"""Handwritten digits: train, stop in the middle, go on in a fresh trainer, and compare the modes bit by bit.

    python examples/digits.py            in turn, on one thread
    python examples/digits.py --workers 2 --asynchronous
    python examples/digits.py --check    both, resumed and not: all with equal bits

1797 real images of 8 by 8 pixels, from scikit-learn (no download). A loader that shuffles and prefetches,
batch norm, dropout, AdamW with warm-up and cosine, accumulation, a checkpoint in the middle of an epoch.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

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
    warmup_cosine,
    workers,
)

EPOCHS = 30


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and test images, four fifths and one fifth, pixels in [0, 1]."""
    digits = load_digits()
    x = (digits.data / 16).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    cut = len(x) * 4 // 5
    return x[order[:cut]], digits.target[order[:cut]], x[order[cut:]], digits.target[order[cut:]]


def new_trainer(**options) -> Trainer:
    """The same model, optimizer and schedule every time."""
    rng = np.random.default_rng(1)
    model = Sequential(
        Linear(64, 128, rng=rng), BatchNorm(128), ReLU(), Dropout(0.2, seed=1),
        Linear(128, 64, rng=rng), BatchNorm(64), ReLU(),
        Linear(64, 10, rng=rng),
    )  # fmt: skip
    rate = warmup_cosine(0.01, warmup=20, total=EPOCHS * 12)
    optimizer = AdamW(model.parameters(), rate, weight_decay=0.01)
    return Trainer(model, cross_entropy_with_grad, optimizer, accumulate=2, clip_norm=5.0, **options)


class Stopped(Exception):
    """Stands for a crash or a Ctrl-C."""


def train(*, threads: int, asynchronous: bool, stop_after: int | None, folder: Path) -> tuple[float, Trainer]:
    """Train to the end, through a stop after so many batches if asked. Returns test accuracy and trainer."""
    x, y, x_test, y_test = data()
    path = folder / "digits.checkpoint"

    def on_batch(now: Trainer) -> None:
        if now.steps.batches == stop_after:
            now.save(path)
            raise Stopped

    trainer = new_trainer(on_batch=on_batch)
    with workers(threads):
        try:
            run(trainer, DataLoader(x, y, batch_size=64, shuffle=True, seed=2, prefetch=2), asynchronous)
        except Stopped:
            trainer = new_trainer()
            trainer.load(path)
            run(trainer, DataLoader(x, y, batch_size=64, shuffle=True, seed=2, prefetch=2), asynchronous)
    return trainer.evaluate(DataLoader(x_test, y_test, batch_size=256), metric=accuracy), trainer


def run(trainer: Trainer, loader: DataLoader, asynchronous: bool) -> None:
    """Sequential or awaited: one argument, the same result."""
    if asynchronous:
        asyncio.run(trainer.fit_async(loader, epochs=EPOCHS))
    else:
        trainer.fit(loader, epochs=EPOCHS)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--asynchronous", action="store_true")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    modes = [(args.workers, args.asynchronous, 200)]
    if args.check:
        modes = [(1, False, None), (1, False, 200), (2, True, 111)]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for threads, asynchronous, stop_after in modes:
            began = time.perf_counter()
            share, trainer = train(
                threads=threads, asynchronous=asynchronous, stop_after=stop_after, folder=Path(folder)
            )
            results.append(trainer.model.state_dict())
            print(
                f"workers {threads}, {'awaited' if asynchronous else 'plain'}, "
                f"{f'stopped after batch {stop_after} and resumed' if stop_after else 'not stopped'}: "
                f"last loss {trainer.history[-1].loss:.4f}, test accuracy {share:.1%}, "
                f"{time.perf_counter() - began:.1f} s"
            )
            assert share >= 0.97, share
    for other in results[1:]:
        assert all(np.array_equal(other[name], array) for name, array in results[0].items())
    if args.check:
        print("all runs have equal bits")


if __name__ == "__main__":
    main()
