"""Layers that hold parameters: Linear, BatchNorm, LayerNorm, and Dropout, which holds a seed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from asyncflow.compute.batch_norm import BatchNormContext, batch_norm_backward, batch_norm_forward
from asyncflow.compute.checks import Array, cast, count, floating, not_negative, share, work_dtype
from asyncflow.compute.dropout import DropoutContext, dropout_backward, dropout_forward
from asyncflow.compute.layer_norm import LayerNormContext, layer_norm_backward, layer_norm_forward
from asyncflow.compute.parameter import Parameter
from asyncflow.compute.products import product
from asyncflow.compute.sums import column_sums
from asyncflow.errors import DtypeError, ShapeError


class Linear:
    """x @ weight.T + bias, PyTorch's layout and its initial values.

    Args:
        in_features: Length of x's last axis, at least 1.
        out_features: Length of the result's last axis, at least 1.
        rng: Where the initial values come from: uniform in ±1 / sqrt(in_features).
        dtype: Of weight and bias; x must have it too.

    Attributes:
        weight: Parameter of shape (out_features, in_features).
        bias: Parameter of shape (out_features,).

    Example:
        >>> layer = Linear(3, 2, rng=np.random.default_rng(0))
        >>> layer.forward(np.zeros((5, 3), np.float32), training=False)[0].shape
        (5, 2)
    """

    skips_input_grad = True

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        rng: np.random.Generator,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        shape = count("out_features", out_features), count("in_features", in_features)
        if not isinstance(rng, np.random.Generator):
            raise DtypeError(f"rng must be a numpy.random.Generator, got {type(rng).__name__}")
        bound = 1 / math.sqrt(in_features)
        self.weight = Parameter(rng.uniform(-bound, bound, shape).astype(dtype), name="weight")
        self.bias = Parameter(rng.uniform(-bound, bound, out_features).astype(dtype), name="bias")

    def forward(self, x: Array, *, training: bool = False) -> tuple[Array, Array]:
        """The result, shape (…, out_features); the context is x itself, which must not be changed."""
        x = floating("x", x)
        weight = self.weight.value
        if x.ndim == 0 or x.shape[-1] != weight.shape[1]:
            raise ShapeError(f"x must have shape (…, {weight.shape[1]}), got {x.shape}")
        if x.dtype != weight.dtype:
            raise DtypeError(
                f"x must have the layer's dtype {weight.dtype}, got {x.dtype}; use x.astype(...)"
            )
        x = np.ascontiguousarray(x)  # BLAS rounds a transposed operand in another order
        y = product(x.reshape(-1, weight.shape[1]), weight.T, self.bias.value)
        return y.reshape(*x.shape[:-1], weight.shape[0]), x

    @np.errstate(all="ignore")
    def backward(self, ctx: Array, dy: Array, *, input_grad: bool = True) -> Array:
        """Add to the gradients of weight and bias; return that of x (empty if `input_grad` is False)."""
        weight = self.weight.value
        wanted = (*ctx.shape[:-1], weight.shape[0])
        dy = np.ascontiguousarray(floating("dy", dy))
        if dy.shape != wanted:
            raise ShapeError(f"dy must have the shape of the result, {wanted}, got {dy.shape}")
        work = work_dtype(weight.dtype)
        x, up = ctx.reshape(-1, weight.shape[1]), dy.reshape(-1, weight.shape[0])
        x, up = cast(x, work), cast(up, work)
        self.weight.add_grad(product(up.T, x), given=True)
        self.bias.add_grad(column_sums(up).astype(work), given=True)
        if not input_grad:
            return np.empty(0, ctx.dtype)
        return cast(product(up, cast(weight, work)), ctx.dtype).reshape(ctx.shape)

    def parameters(self) -> list[Parameter]:
        """weight and bias."""
        return [self.weight, self.bias]

    def arrays(self) -> dict[str, Array]:
        """weight and bias."""
        return {"weight": self.weight.value, "bias": self.bias.value}


class BatchNorm:
    """Batch normalisation with its parameters and running statistics; see `batch_norm_forward`.

    Args:
        num_features: Channels, at least 1.
        eps: Added to the variance.
        momentum: Weight of the newest batch in the running statistics (PyTorch's meaning); None averages
            all batches.
        dtype: Of every array of the layer.
        channel_axis: 1 for (n, channels, …), -1 for (…, channels).

    Under gradient accumulation each small batch is normalised by itself and moves the running statistics
    once: the result is not that of the large batch.
    """

    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        dtype: npt.DTypeLike = np.float32,
        channel_axis: int = 1,
    ) -> None:
        count("num_features", num_features)
        self.eps = not_negative("eps", eps)
        self.momentum = None if momentum is None else share("momentum", momentum, below_one=False)
        self.channel_axis = channel_axis
        self.gamma = Parameter(np.ones(num_features, dtype), name="gamma")
        self.beta = Parameter(np.zeros(num_features, dtype), name="beta")
        statistics = work_dtype(np.dtype(dtype))
        self.running_mean = np.zeros(num_features, statistics)
        self.running_var = np.ones(num_features, statistics)
        self.batches_seen = np.zeros((), np.int64)

    def forward(self, x: Array, *, training: bool = False) -> tuple[Array, BatchNormContext]:
        """The result in x's shape; training moves the running statistics."""
        result = batch_norm_forward(
            x,
            self.gamma.value,
            self.beta.value,
            self.running_mean,
            self.running_var,
            training=training,
            momentum=self.momentum,
            eps=self.eps,
            channel_axis=self.channel_axis,
            batches_seen=int(self.batches_seen),
        )
        if training:
            self.batches_seen += 1
        return result

    def backward(self, ctx: BatchNormContext, dy: Array) -> Array:
        """Add to the gradients of gamma and beta; return that of x."""
        dx, dgamma, dbeta = batch_norm_backward(ctx, dy)
        self.gamma.add_grad(dgamma, given=True)
        self.beta.add_grad(dbeta, given=True)
        return dx

    def parameters(self) -> list[Parameter]:
        """gamma and beta."""
        return [self.gamma, self.beta]

    def arrays(self) -> dict[str, Array]:
        """Parameters, running statistics, and the number of batches in them."""
        return {
            "gamma": self.gamma.value,
            "beta": self.beta.value,
            "running_mean": self.running_mean,
            "running_var": self.running_var,
            "batches_seen": self.batches_seen,
        }


class LayerNorm:
    """Layer normalisation over the last axis, with its parameters; see `layer_norm_forward`."""

    def __init__(self, num_features: int, *, eps: float = 1e-5, dtype: npt.DTypeLike = np.float32) -> None:
        count("num_features", num_features)
        self.eps = not_negative("eps", eps)
        self.gamma = Parameter(np.ones(num_features, dtype), name="gamma")
        self.beta = Parameter(np.zeros(num_features, dtype), name="beta")

    def forward(self, x: Array, *, training: bool = False) -> tuple[Array, LayerNormContext]:
        """The result in x's shape."""
        return layer_norm_forward(x, self.gamma.value, self.beta.value, eps=self.eps)

    def backward(self, ctx: LayerNormContext, dy: Array) -> Array:
        """Add to the gradients of gamma and beta; return that of x."""
        dx, dgamma, dbeta = layer_norm_backward(ctx, dy)
        self.gamma.add_grad(dgamma, given=True)
        self.beta.add_grad(dbeta, given=True)
        return dx

    def parameters(self) -> list[Parameter]:
        """gamma and beta."""
        return [self.gamma, self.beta]

    def arrays(self) -> dict[str, Array]:
        """gamma and beta."""
        return {"gamma": self.gamma.value, "beta": self.beta.value}


class Dropout:
    """Inverted dropout when training, nothing otherwise; see `dropout_forward`.

    Args:
        rate: Probability of a 0, in [0, 1].
        seed: An integer of at least 0. The mask follows from (seed, step, place in the model).

    Attributes:
        steps: Training forwards so far that were not given a `step`; such a forward uses this number.
    """

    takes_step = True

    def __init__(self, rate: float = 0.5, *, seed: int = 0) -> None:
        self.rate = share("rate", rate, below_one=False)
        self.seed = count("seed", seed, least=0)
        self.steps = np.zeros((), np.int64)

    def forward(
        self, x: Array, *, training: bool = False, step: tuple[int, ...] | int | None = None
    ) -> tuple[Array, DropoutContext | None]:
        """The result; `step` names the mask, and equal steps give equal masks."""
        if not training:
            return floating("x", x), None
        if step is None:
            step = int(self.steps)
            self.steps += 1
        return dropout_forward(x, self.rate, key=(self.seed, *((step,) if isinstance(step, int) else step)))

    def backward(self, ctx: DropoutContext | None, dy: Array) -> Array:
        """dy under the forward's mask."""
        return dy if ctx is None else dropout_backward(ctx, dy)

    def parameters(self) -> list[Parameter]:
        """None."""
        return []

    def arrays(self) -> dict[str, Any]:
        """The count of its own steps."""
        return {"steps": self.steps}
