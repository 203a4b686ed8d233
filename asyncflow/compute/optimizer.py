"""What all optimizers share: which arrays they change, in what precision, and how they are saved.

Float16 parameters have a float32 master copy here. The step changes the master, and the parameter receives
its rounding: changes too small for float16 are not lost.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from asyncflow.compute.checks import Array, not_negative
from asyncflow.compute.parameter import Parameter
from asyncflow.compute.sequential import load_arrays
from asyncflow.compute.tiles import plan, run_tiles
from asyncflow.errors import DtypeError

#: Bytes of each array of an update that one tile touches.
STEP_BYTES = 2 << 20

#: A function, and its arrays: what it changes, the gradient, and the optimizer's own.
Update = tuple[Callable[..., None], list[Array]]

#: A fixed learning rate, or a function from the number of steps already made to the rate of the next.
Rate = float | Callable[[int], float]


class Optimizer(ABC):
    """Changes parameters along their gradients.

    Attributes:
        parameters: The parameters, each once (tied ones are updated once).
        steps: Steps made so far; a schedule is called with it. Skipped steps do not count.
    """

    def __init__(self, parameters: Iterable[Parameter], learning_rate: Rate, weight_decay: float) -> None:
        if not isinstance(parameters, Iterable):
            raise DtypeError(
                f"parameters must be Parameter objects, got one {type(parameters).__name__}; of a model give "
                "model.parameters()"
            )
        found = list(parameters)
        for p in found:
            if not isinstance(p, Parameter):
                raise DtypeError(f"parameters must hold Parameter objects, got {type(p).__name__}")
        self.parameters = list({id(p): p for p in found}.values())
        if not callable(learning_rate):
            not_negative("learning_rate", learning_rate)
        self.learning_rate = learning_rate
        self.weight_decay = not_negative("weight_decay", weight_decay)
        self.steps = 0
        self._masters = [
            p.value.astype(np.float32) if p.value.dtype == np.float16 else None for p in self.parameters
        ]

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.learning_rate(self.steps) if callable(self.learning_rate) else self.learning_rate)

    def step(self) -> None:
        """Change every parameter once along its gradient, which stays as it is."""
        rate = self.rate
        update_tiles(
            [
                self._update(number, p.value if master is None else master, p.grad, rate)
                for number, (p, master) in enumerate(zip(self.parameters, self._masters, strict=True))
            ]
        )
        for p, master in zip(self.parameters, self._masters, strict=True):
            if master is not None:
                p.value[...] = master
        self.steps += 1

    def zero_grad(self) -> None:
        """Set every gradient to 0."""
        for p in self.parameters:
            p.zero_grad()

    @abstractmethod
    def _update(self, number: int, value: Array, grad: Array, rate: float) -> Update:
        """How `value`, the array of parameter `number`, is changed in place."""

    @abstractmethod
    def _slots(self) -> dict[str, Array]:
        """The optimizer's own arrays by name."""

    def arrays(self) -> dict[str, Array]:
        """Everything a checkpoint must hold besides `steps`: the arrays themselves, not copies."""
        masters = {f"master.{i}": m for i, m in enumerate(self._masters) if m is not None}
        return self._slots() | masters

    def state_dict(self) -> dict[str, Any]:
        """The number of steps, and copies of all arrays."""
        return {"steps": self.steps, "arrays": {name: a.copy() for name, a in self.arrays().items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            RangeError, ShapeError: If the arrays are not those of these parameters.
        """
        load_arrays(self.arrays(), state["arrays"])
        self.steps = int(state["steps"])


def update_tiles(work: list[Update]) -> None:
    """Make all updates: flat pieces of large arrays, and small arrays several to a tile.

    An update is a function and its arrays, of one size; the function writes all of them but the second, which
    is the gradient.
    """
    tiles: list[list[Update]] = [[]]
    room = STEP_BYTES
    for function, arrays in work:
        if not all(a.flags.c_contiguous for a in (arrays[0], *arrays[2:])):
            _through_copies(function, arrays)
            continue
        flat = [np.ascontiguousarray(a).reshape(-1) for a in arrays]
        parts = plan(flat[0].size, flat[0].itemsize, tile_bytes=STEP_BYTES)
        if len(parts) > 1:
            tiles += [[(function, [a[part] for a in flat])] for part in parts]
            continue
        if flat[0].nbytes > room:
            tiles.append([])
            room = STEP_BYTES
        tiles[-1].append((function, flat))
        room -= flat[0].nbytes

    tiles = [tile for tile in tiles if tile]

    def one(index: int) -> None:
        for function, arrays in tiles[index]:
            function(*arrays)

    run_tiles(one, len(tiles))


def _through_copies(function: Callable[..., None], arrays: list[Array]) -> None:
    """For a view into something larger: its numbers go through a copy and back."""
    copies = [np.ascontiguousarray(a) for a in arrays]
    update_tiles([(function, copies)])
    for place, (a, c) in enumerate(zip(arrays, copies, strict=True)):
        if a is not c and place != 1:
            a[...] = c
