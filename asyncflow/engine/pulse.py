"""The loop belongs to others too: when workers whose calls never suspend let them run."""

from __future__ import annotations

import math

from asyncflow.clock import SYSTEM
from asyncflow.engine.tasks import Host


class Pulse:
    """How long the event loop has been held: whoever finds it too long lets others run.

    All workers of a run share one, so that they hold the loop for this long together, not each. Where calls
    suspend by themselves, that costs one needless turn in every `PATIENCE` seconds.

    Attributes:
        rest: When, in real time, to let others run.
    """

    PATIENCE = 0.01

    __slots__ = ("_asked", "_host", "rest")

    def __init__(self, host: Host) -> None:
        self._host = host
        self._asked = False
        self.rest = math.inf if host.blocking else SYSTEM.now() + self.PATIENCE

    async def let_others_run(self) -> None:
        """One turn of the loop; until it comes, nobody goes on for long."""
        if not self._asked:
            self._asked = True
            self._host.call_soon(self._turned)
        await self._host.let_others_run()

    def _turned(self) -> None:
        self._asked = False
        self.rest = SYSTEM.now() + self.PATIENCE
