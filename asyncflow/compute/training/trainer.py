"""Training: epochs over a loader, evaluation, early stopping, and a state that resumes exactly.

Everything comes in two forms that give equal bits: plain, and awaitable, which runs each batch on a thread
while the event loop goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterable, Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from asyncflow.compute.checks import Array, count, not_negative
from asyncflow.compute.loader import DataLoader
from asyncflow.compute.offload import offload
from asyncflow.compute.optimizer import Optimizer
from asyncflow.compute.precision import LossScale
from asyncflow.compute.sequential import load_arrays
from asyncflow.compute.training.checkpoint import read_checkpoint, write_checkpoint
from asyncflow.compute.training.early_stopping import EarlyStopping
from asyncflow.compute.training.metrics import Mean, Metric
from asyncflow.compute.training.steps import LossWithGrad, Steps
from asyncflow.errors import RangeError, ShapeError


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch of `fit`.

    Attributes:
        epoch: Counted from 0.
        loss: Mean training loss over samples, while the parameters were changing.
        validation_loss: Mean loss on the validation data afterwards, or None.
        learning_rate: The rate of the next step.
        seconds: How long the epoch took, since a resume if there was one.
    """

    epoch: int
    loss: float
    validation_loss: float | None
    learning_rate: float
    seconds: float


class Trainer:
    """Trains a model on batches `(x, y)` of a loader.

    Args:
        model: `Sequential`, or anything with its `forward`, `backward` and `arrays`.
        loss_with_grad: From prediction and target to the mean loss and its gradient, such as
            `cross_entropy_with_grad` or a partial of it.
        optimizer: Holds the parameters.
        accumulate: Batches per step. Their gradients are weighted by samples, or by whatever the loss
            divides its mean by (class weights, ignored rows); a last smaller group makes a step too.
            Batch normalisation still sees each batch by itself.
        clip_norm: Longest gradient, over all parameters, or None.
        loss_scale: For float16 models, or None. Steps it skips do not advance a schedule.
        batch_weight: From the targets to the batch's weight, for a loss of your own whose mean divides by
            something else than the rows.
        on_batch: Called with the trainer after every batch, on the thread that trained it; what it raises
            ends the epoch, and the trainer can be saved there.

    Attributes:
        epoch: Epochs finished.
        history: The records of `fit` so far.

    Example:
        >>> import numpy as np
        >>> from asyncflow.compute import DataLoader, Linear, SGD, Sequential, mse_loss_with_grad
        >>> model = Sequential(Linear(1, 1, rng=np.random.default_rng(0), dtype=np.float64))
        >>> trainer = Trainer(model, mse_loss_with_grad, SGD(model.parameters(), 0.1))
        >>> x = np.linspace(-1, 1, 64)[:, None]
        >>> loader = DataLoader(x, 3 * x, batch_size=16)
        >>> losses = [trainer.train_epoch(loader) for _ in range(30)]
        >>> losses[-1] < 1e-3 < losses[0]
        True
    """

    def __init__(
        self,
        model: Any,
        loss_with_grad: LossWithGrad,
        optimizer: Optimizer,
        *,
        accumulate: int = 1,
        clip_norm: float | None = None,
        loss_scale: LossScale | None = None,
        batch_weight: Callable[[Any], float] | None = None,
        on_batch: Callable[[Trainer], None] | None = None,
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self.steps = Steps(
            model,
            loss_with_grad,
            optimizer,
            accumulate=accumulate,
            clip_norm=clip_norm,
            loss_scale=loss_scale,
            batch_weight=batch_weight,
        )
        self.on_batch = on_batch
        self.epoch = 0
        self.history: list[EpochRecord] = []
        self._stopping = EarlyStopping()
        self._running = False
        self._loader_state: dict[str, int] | None = None
        self._loader_resumes = False

    def train_epoch(self, loader: Iterable[Any]) -> float:
        """One pass over the loader, or the rest of one after `load`.

        Returns:
            The mean loss over the epoch's samples (those before a resume included), a Python float. A
            mean over batches would count a small last batch as much as a full one.

        Raises:
            ShapeError: If a batch is not a pair.
        """
        self._begin(loader)
        for batch in loader:
            self._train(loader, batch)
        return self._end()

    async def train_epoch_async(self, loader: AsyncIterable[Any]) -> float:
        """The same, each batch on a thread, so the event loop goes on.

        Cancelling lets the batch that runs end; the trainer can then be saved, and goes on from there.
        """
        self._begin(loader)
        async for batch in loader:
            await offload(self._train, loader, batch)
        return await offload(self._end)

    def evaluate(self, loader: Iterable[Any], *, metric: Metric | None = None) -> float:
        """The mean loss over a loader's samples in evaluation mode; parameters and statistics stay.

        Args:
            loader: Gives pairs.
            metric: From prediction and target to a mean over the batch's rows, such as `accuracy`; its
                mean over samples is returned instead of the loss.
        """
        total = Mean()
        for batch in loader:
            total.add(*self._evaluate(batch, metric))
        return total.value

    async def evaluate_async(self, loader: AsyncIterable[Any], *, metric: Metric | None = None) -> float:
        """The same, each batch on a thread."""
        total = Mean()
        async for batch in loader:
            total.add(*await offload(self._evaluate, batch, metric))
        return total.value

    def fit(
        self,
        loader: Iterable[Any],
        *,
        epochs: int,
        validation: Iterable[Any] | None = None,
        patience: int | None = None,
        min_delta: float = 0.0,
        restore_best: bool = True,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> list[EpochRecord]:
        """Train until `epochs` epochs are finished, those before a resume included.

        Args:
            loader: Gives pairs.
            epochs: How many epochs there shall be in all.
            validation: A loader to evaluate after each epoch.
            patience: Stop when the validation loss (without validation, the training loss) has not fallen
                by more than `min_delta` for so many epochs; None never stops early.
            min_delta: At least 0.
            restore_best: After stopping early, put the model back to its best epoch.
            checkpoint: A file to save to after every epoch.

        Returns:
            One record per epoch of this trainer, `history`.
        """
        self._check_fit(epochs, patience, min_delta)
        while self.epoch < epochs and not self._stopping.over(patience):
            began = time.perf_counter()
            loss = self.train_epoch(loader)
            held = None if validation is None else self.evaluate(validation)
            self._record(loss, held, min_delta, time.perf_counter() - began)
            if checkpoint is not None:
                self.save(checkpoint)
        if restore_best and self._stopping.over(patience):
            self._stopping.restore(self.model)
        return self.history

    async def fit_async(
        self,
        loader: AsyncIterable[Any],
        *,
        epochs: int,
        validation: AsyncIterable[Any] | None = None,
        patience: int | None = None,
        min_delta: float = 0.0,
        restore_best: bool = True,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> list[EpochRecord]:
        """`fit`, with batches, evaluation and saving on threads."""
        self._check_fit(epochs, patience, min_delta)
        while self.epoch < epochs and not self._stopping.over(patience):
            began = time.perf_counter()
            loss = await self.train_epoch_async(loader)
            held = None if validation is None else await self.evaluate_async(validation)
            self._record(loss, held, min_delta, time.perf_counter() - began)
            if checkpoint is not None:
                await self.save_async(checkpoint)
        if restore_best and self._stopping.over(patience):
            self._stopping.restore(self.model)
        return self.history

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything that training goes on from: also between two batches, from `on_batch`.

        Model, optimizer, waiting gradients, counts, history, and where the loader stood after the last
        batch that was trained on. The file is replaced at once or not at all.
        """
        steps = self.steps
        state = {
            "epoch": self.epoch,
            "running": self._running,
            "loader": self._loader_state if self._running else None,
            "optimizer_steps": self.optimizer.steps,
            "counts": [steps.batches, steps.pending],
            "sums": [steps.pending_base, steps.pending_weight, steps.loss_sum, steps.weight_sum],
            "loss_scale": steps.loss_scale.state_dict() if steps.loss_scale else None,
            "history": [asdict(record) for record in self.history],
            "stopping": self._stopping.state(),
        }
        write_checkpoint(path, state, self._arrays())

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on where `save` was called. The next epoch is the rest of the one that was running.

        Call it on a trainer whose model, optimizer and loader were made as before; the loader passed to
        the next `train_epoch` or `fit` is set to the right place if it has `load_state_dict`.

        Raises:
            RangeError, ShapeError: If the file is not a checkpoint of such a trainer. Nothing is changed.
        """
        state, arrays = read_checkpoint(path)
        best = {n.removeprefix("best/"): a for n, a in arrays.items() if n.startswith("best/")}
        load_arrays(self._arrays(best=False), {n: a for n, a in arrays.items() if not n.startswith("best/")})
        steps = self.steps
        self.epoch, self._running = state["epoch"], state["running"]
        self._loader_state, self._loader_resumes = state["loader"], self._running
        self.optimizer.steps = state["optimizer_steps"]
        steps.batches, steps.pending = state["counts"]
        steps.pending_base, steps.pending_weight, steps.loss_sum, steps.weight_sum = state["sums"]
        if steps.loss_scale is not None and state["loss_scale"] is not None:
            steps.loss_scale.load_state_dict(state["loss_scale"])
        self.history = [EpochRecord(**record) for record in state["history"]]
        self._stopping = EarlyStopping(*state["stopping"], arrays=best)

    async def save_async(self, path: str | os.PathLike[str]) -> None:
        """`save` on a thread."""
        await offload(self.save, path)

    async def load_async(self, path: str | os.PathLike[str]) -> None:
        """`load` on a thread."""
        await offload(self.load, path)

    def _arrays(self, *, best: bool = True) -> dict[str, Array]:
        named = {f"model/{name}": array for name, array in self.model.arrays().items()}
        named |= {f"optimizer/{name}": array for name, array in self.optimizer.arrays().items()}
        named |= {f"gradient/{i}": p.grad for i, p in enumerate(self.optimizer.parameters)}
        return named | ({f"best/{name}": a for name, a in self._stopping.arrays.items()} if best else {})

    def _begin(self, loader: Any) -> None:
        if not (self._running and self._loader_resumes):
            self.steps.begin()
            self._loader_state = loader.state_dict() if isinstance(loader, DataLoader) else None
        elif self._loader_state is not None:
            loader.load_state_dict(self._loader_state)
        self._running, self._loader_resumes = True, False

    def _train(self, loader: Any, batch: Any) -> None:
        self.steps.batch(*_pair(batch))
        if isinstance(loader, DataLoader):
            self._loader_state = loader.state_dict()
        if self.on_batch is not None:
            self.on_batch(self)

    def _end(self) -> float:
        self.steps.flush()
        self._running = False
        self.epoch += 1
        return self.steps.mean_loss

    def _evaluate(self, batch: Any, metric: Metric | None) -> tuple[float, float]:
        x, y = _pair(batch)
        prediction = self.model.forward(x, training=False)[0]
        if metric is not None:
            return float(metric(prediction, y)), float(len(prediction))
        loss, _, weight = self.steps.loss(prediction, y)
        return loss, weight

    def _check_fit(self, epochs: int, patience: int | None, min_delta: float) -> None:
        count("epochs", epochs, least=0)
        not_negative("min_delta", min_delta)
        if patience is not None:
            count("patience", patience)

    def _record(self, loss: float, held: float | None, min_delta: float, seconds: float) -> None:
        self.history.append(EpochRecord(self.epoch - 1, loss, held, self.optimizer.rate, seconds))
        self._stopping.see(loss if held is None else held, min_delta, self.model)


def _pair(batch: Any) -> tuple[Any, Any]:
    if not isinstance(batch, tuple) or len(batch) != 2:
        given = f"a tuple of {len(batch)}" if isinstance(batch, tuple) else type(batch).__name__
        raise ShapeError(f"a loader for training must give pairs (x, y), got {given}")
    if len(batch[0]) == 0:
        raise RangeError("a batch must hold at least one sample, got none")
    return batch
