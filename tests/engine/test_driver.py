"""The host of synchronous flows: no event loop, the caller's thread."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

import pytest

from asyncflow import BatchNode, Flow


def test_a_failure_on_threads_is_raised_as_it_is() -> None:
    """The first failure of a plain flow's threads is the item's own exception, and the siblings end."""
    ended = []
    gate = threading.Event()

    class Work(BatchNode):
        concurrency = 2

        def prep(self, shared: Any) -> Any:
            return range(2)

        def exec(self, item: int) -> None:
            if item == 1:
                gate.set()
                raise ValueError(item)
            gate.wait(5)
            ended.append(item)

    with pytest.raises(ValueError, match="1"):
        Flow(start=Work()).run({})
    assert ended == [0]


def test_no_call_from_a_thread_is_lost_to_ctrl_c() -> None:
    """An interrupt that arrives as a thread calls home ends the run; it does not leave it waiting."""

    class Work(BatchNode):
        concurrency = 2

        def prep(self, shared: Any) -> Any:
            return range(20)

        def exec(self, item: int) -> None:
            if item == 1:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.002)

    for _ in range(20):
        with pytest.raises(KeyboardInterrupt):
            Flow(start=Work()).run({})
