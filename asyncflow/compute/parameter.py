"""What training changes: an array and its gradient, and the layers' common protocol."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from asyncflow.compute.checks import Array, same_shape, work_dtype
from asyncflow.compute.memory import aligned
from asyncflow.errors import DtypeError, RangeError


class Parameter:
    """An array that an optimizer changes in place, and the gradient that backwards add to.

    Args:
        value: Floating and writeable; kept, not copied. Integers cannot be trained and are refused.
        name: For messages.

    Attributes:
        value: The array. Its identity never changes.
        grad: The gradient, of value's shape; float32 for float16 values, whose small gradients would vanish.
    """

    __slots__ = ("_empty", "_grad", "name", "value")

    def __init__(self, value: Array, *, name: str = "parameter") -> None:
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
            given = f"{value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
            raise DtypeError(f"{name} must be a floating NumPy array to be trained, got {given}")
        if not value.flags.writeable:
            raise RangeError(f"{name} must be writeable, got a read-only array")
        self.value = value
        self.name = name
        self._grad: Array = aligned(value.shape, work_dtype(value.dtype))
        self._empty = True

    @property
    def grad(self) -> Array:
        """The sum of what was added since `zero_grad`; zeros are only written when somebody looks."""
        if self._empty:
            self._grad.fill(0)
            self._empty = False
        return self._grad

    @grad.setter
    def grad(self, gradient: Array) -> None:
        same_shape("grad", gradient, self.name, self.value)
        self._grad = gradient.astype(self._grad.dtype, copy=False)
        self._empty = False

    def add_grad(self, gradient: Array, *, given: bool = False) -> None:
        """Add to the gradient. Several backwards add up until `zero_grad`.

        Args:
            gradient: Of value's shape.
            given: Whether the array may be kept, because nobody else has it.
        """
        same_shape("gradient", gradient, self.name, self.value)
        with np.errstate(all="ignore"):
            if not self._empty:
                self._grad += gradient
            elif given and gradient.dtype == self._grad.dtype:
                self._grad = gradient
            else:
                self._grad[...] = gradient
        self._empty = False

    def zero_grad(self) -> None:
        """Set the gradient to 0."""
        self._empty = True

    def __repr__(self) -> str:
        return f"<Parameter {self.name} {self.value.dtype} {self.value.shape}>"


class Layer(Protocol):
    """What `Sequential` and `Trainer` ask of a layer.

    `forward` returns its result and a context; `backward` takes that context, adds to the gradients of the
    parameters and returns the gradient of its input. Nothing of a call stays on the layer, so forwards may
    interleave; parameters and running statistics are the layer's only state.
    """

    def forward(self, x: Array, *, training: bool) -> tuple[Array, Any]:
        """The result, and what backward needs."""
        ...

    def backward(self, ctx: Any, dy: Array) -> Array:
        """The gradient of the input, from that of the result."""
        ...

    def parameters(self) -> list[Parameter]:
        """What an optimizer may change."""
        ...

    def arrays(self) -> dict[str, Array]:
        """Everything a checkpoint must hold, by name: the arrays themselves, not copies."""
        ...
