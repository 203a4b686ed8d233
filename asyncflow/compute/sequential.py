"""Layers one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncflow.compute.checks import Array
from asyncflow.compute.parameter import Layer, Parameter
from asyncflow.errors import RangeError, ShapeError


class Sequential:
    """The layers' forwards in order, their backwards in reverse.

    Attributes:
        layers: The layers, in order.

    Example:
        >>> from asyncflow.compute import Linear, ReLU
        >>> rng = np.random.default_rng(0)
        >>> model = Sequential(Linear(4, 8, rng=rng), ReLU(), Linear(8, 2, rng=rng))
        >>> model(np.zeros((3, 4), np.float32)).shape
        (3, 2)
    """

    takes_step = True
    skips_input_grad = True

    def __init__(self, *layers: Layer) -> None:
        self.layers = layers
        self.steps = np.zeros((), np.int64)

    def __call__(self, x: Array) -> Array:
        """The result of a forward in evaluation mode."""
        return self.forward(x, training=False)[0]

    def forward(
        self, x: Array, *, training: bool = False, step: tuple[int, ...] | int | None = None
    ) -> tuple[Array, list[Any]]:
        """The result and the layers' contexts.

        `step` names the masks of the dropout layers inside; without it each training forward is the
        next step.
        """
        if step is None:
            step = int(self.steps)
            if training:
                self.steps += 1
        path = (step,) if isinstance(step, int) else step
        contexts = []
        for place, layer in enumerate(self.layers):
            more = {"step": (*path, place)} if getattr(layer, "takes_step", False) else {}
            x, ctx = layer.forward(x, training=training, **more)
            contexts.append(ctx)
        return x, contexts

    def backward(self, ctx: list[Any], dy: Array, *, input_grad: bool = True) -> Array:
        """Add to the gradients of all parameters; return that of the input.

        With `input_grad=False` a first `Linear` (or `Sequential`) leaves out the gradient of the data,
        which training has no use for, and what is returned has no meaning.
        """
        for place in range(len(self.layers) - 1, -1, -1):
            layer: Any = self.layers[place]
            skips = place == 0 and not input_grad and getattr(layer, "skips_input_grad", False)
            dy = layer.backward(ctx[place], dy, **({"input_grad": False} if skips else {}))
        return dy

    def parameters(self) -> list[Parameter]:
        """Those of all layers, in order, each once."""
        found = {id(p): p for layer in self.layers for p in layer.parameters()}
        return list(found.values())

    def arrays(self) -> dict[str, Array]:
        """Everything a checkpoint must hold, named "place.name"."""
        own = {f"{i}.{name}": a for i, layer in enumerate(self.layers) for name, a in layer.arrays().items()}
        return own | {"steps": self.steps}

    def state_dict(self) -> dict[str, Array]:
        """Copies of `arrays()`."""
        return {name: array.copy() for name, array in self.arrays().items()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Write saved arrays into the layers', which keep their identity.

        Raises:
            RangeError: If names are missing or left over.
            ShapeError: If a shape differs.
        """
        load_arrays(self.arrays(), state)


def load_arrays(own: dict[str, Array], state: dict[str, Array]) -> None:
    """Copy `state` into the arrays `own`, name by name; nothing is changed unless everything fits."""
    if own.keys() != state.keys():
        raise RangeError(
            f"state does not fit the model: missing {sorted(own.keys() - state.keys())}, "
            f"left over {sorted(state.keys() - own.keys())}"
        )
    for name, array in own.items():
        if np.shape(state[name]) != array.shape:
            raise ShapeError(f"{name} must have shape {array.shape}, got {np.shape(state[name])}")
    for name, array in own.items():
        array[...] = state[name]
