"""What the tests of this room share: a host that runs callbacks at once, and one that does when asked."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest


class Home:
    """Stands for an event loop: callbacks from the writer's thread wait until `run`."""

    def __init__(self) -> None:
        self.key: object = self
        self.calls: list[Callable[[], None]] = []
        self.ended = False
        self._arrived = threading.Condition()

    def from_thread(self, callback: Callable[[], None]) -> None:
        if self.ended:
            raise RuntimeError("the loop has ended")
        with self._arrived:
            self.calls.append(callback)
            self._arrived.notify()

    def run(self, count: int = 1) -> int:
        """Wait for `count` callbacks and run them; returns how many there were."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.calls) >= count, 20)
            calls, self.calls = self.calls, []
        for call in calls:
            call()
        return len(calls)


@pytest.fixture
def home() -> Home:
    return Home()


@pytest.fixture
def make_home() -> type[Home]:
    return Home
