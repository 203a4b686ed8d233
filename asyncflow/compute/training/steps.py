"""One batch, one group of batches, one step: what training does to a model, without a loop or a loader.

Gradients of a group are accumulated as sums and divided once, by the sum of the weights of all its rows. So k
small batches give the gradient of the large one, also if their sizes differ or their classes have weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asyncflow.compute.checks import Array, count, positive, work_dtype
from asyncflow.compute.clipping import clip_gradients, scale_gradient
from asyncflow.compute.divisor import Listening
from asyncflow.compute.optimizer import Optimizer
from asyncflow.compute.precision import LossScale
from asyncflow.errors import RangeError
from asyncflow.threads import one_blas_thread

LossWithGrad = Callable[[Array, Any], tuple[Any, Array]]


class Steps:
    """Forward, loss, backward, and an optimizer step after every `accumulate` batches.

    Attributes:
        batches: Batches trained on so far; names the dropout masks.
        pending: Batches whose gradients wait for the step.
        pending_base: The weight of the first of them.
        pending_weight: The sum of their weights, as multiples of the first.
        loss_sum: The sum of weight·loss since the epoch began.
        weight_sum: The sum of the weights since the epoch began.
    """

    def __init__(
        self,
        model: Any,
        loss_with_grad: LossWithGrad,
        optimizer: Optimizer,
        *,
        accumulate: int,
        clip_norm: float | None,
        loss_scale: LossScale | None,
        batch_weight: Callable[[Any], float] | None,
    ) -> None:
        self.model, self.loss_with_grad, self.optimizer = model, loss_with_grad, optimizer
        self.accumulate = count("accumulate", accumulate)
        self.clip_norm = None if clip_norm is None else positive("clip_norm", clip_norm)
        self.loss_scale, self.batch_weight = loss_scale, batch_weight
        self.batches = self.pending = 0
        self.pending_base = self.pending_weight = self.loss_sum = self.weight_sum = 0.0

    def begin(self) -> None:
        """Start counting an epoch, with gradients of 0."""
        self.loss_sum = self.weight_sum = 0.0
        self.pending, self.pending_base, self.pending_weight = 0, 0.0, 0.0
        self.optimizer.zero_grad()

    def batch(self, x: Any, y: Any) -> bool:
        """Train on one batch. Returns whether the optimizer's turn came."""
        with one_blas_thread():  # once, instead of in every operation
            return self._batch(x, y)

    def _batch(self, x: Any, y: Any) -> bool:
        more = {"step": self.batches} if getattr(self.model, "takes_step", False) else {}
        prediction, ctx = self.model.forward(x, training=True, **more)
        loss, grad, weight = self.loss(prediction, y)
        if weight:
            # Weights are taken relative to the group's first batch, so gradients keep the size of a mean.
            self.pending_base = self.pending_base or weight
            factor = weight / self.pending_base
            if self.loss_scale is not None:
                grad = grad.astype(work_dtype(grad.dtype))
                factor *= self.loss_scale.scale
            if factor != 1:
                grad = grad * grad.dtype.type(factor)
            skips = {"input_grad": False} if getattr(self.model, "skips_input_grad", False) else {}
            self.model.backward(ctx, grad, **skips)
            self.loss_sum += weight * loss
            self.weight_sum += weight
            self.pending_weight += weight / self.pending_base
        self.batches += 1
        self.pending += 1
        if self.pending == self.accumulate:
            self.flush()
            return True
        return False

    def loss(self, prediction: Array, y: Any) -> tuple[float, Array, float]:
        """Loss, gradient, and what the batch counts for."""
        with Listening() as heard:
            answer = self.loss_with_grad(prediction, y)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise RangeError(
                f"loss_with_grad must return a loss and its gradient, as cross_entropy_with_grad does; "
                f"{getattr(self.loss_with_grad, '__name__', 'it')} returned one {type(answer).__name__}"
            )
        loss, grad = answer
        if getattr(loss, "ndim", 0):
            raise RangeError(
                f"loss_with_grad must return one number and a gradient (reduction='mean'), "
                f"got an array of shape {loss.shape}"
            )
        weight = self.batch_weight(y) if self.batch_weight else heard.weight(len(prediction))
        return float(loss), grad, float(weight)

    def flush(self) -> None:
        """Make the step for the batches that wait for it, however few; without any, do nothing."""
        if not self.pending:
            return
        parameters = self.optimizer.parameters
        made = bool(self.pending_weight)
        if made:
            if self.pending_weight != 1:
                for p in parameters:
                    scale_gradient(p, 1 / self.pending_weight)
            if self.loss_scale is not None:
                made = self.loss_scale.unscale(parameters)
        if made:
            if self.clip_norm is not None:
                clip_gradients(parameters, self.clip_norm)
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.pending, self.pending_base, self.pending_weight = 0, 0.0, 0.0

    @property
    def mean_loss(self) -> float:
        """The mean loss of the epoch's samples so far; NaN without any."""
        return self.loss_sum / self.weight_sum if self.weight_sum else float("nan")
