"""Ctrl-C and SIGTERM as requests to stop: for programs and commands; no library function installs it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from asyncflow.engine.driver import drive
from asyncflow.engine.journal import GRACE
from asyncflow.engine.stopping import Stop

#: What a program's exit code is after such a signal: 128 and its number, as shells count.
EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143}

#: What a handler is before anybody has set one.
_UNTOUCHED = {"SIGINT": signal.default_int_handler, "SIGTERM": signal.SIG_DFL}

#: Told which signal came, and whether it was the first, the second or the third.
Told = Callable[[str, int], None]


@contextmanager
def stop_on_signals(
    *, grace: float = GRACE, stop: Stop | None = None, told: Told | None = None, leave: bool = True
) -> Iterator[Stop]:
    """Ctrl-C and SIGTERM stop the runs that were given the `Stop`: the first lets what is in flight end, the
    second cancels it, the third leaves the process at once, with exit code 130 or 143.

    Works around `asyncio.run` or `trio.run`, inside of either, and in synchronous code. A handler that the
    program has set itself stays; so do all where this is not the main thread, which alone hears signals. Of
    two such blocks the inner one hears.

    Args:
        grace: Seconds that items in flight have to end in, after the first.
        stop: The `Stop` to ask; None: a new one with this grace.
        told: Called in the signal handler with the signal's name and which one it was, from 1; by default a
            line is written to stderr.
        leave: False: from the third on a signal is again what it was before (in a notebook, which must not
            be left).

    Where a plain node holds the event loop, nothing could cancel it: the second signal is raised in its code,
    as KeyboardInterrupt, or SystemExit(143).

    Example:
        >>> import asyncio
        >>> from asyncflow import amap
        >>> async def double(number):
        ...     return 2 * number
        >>> async def main():
        ...     with stop_on_signals(grace=10) as stop:
        ...         return await amap(double, range(3), stop=stop)
        >>> asyncio.run(main())
        [0, 2, 4]
    """
    stop = Stop(grace=grace) if stop is None else stop
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    say = _say(stop.grace) if told is None else told
    before: dict[int, Any] = {}
    count = 0

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        name = signal.Signals(number).name
        with suppress(Exception):  # a write into a stream that is being written to, say
            say(name, count)
        if count == 1:
            stop.request(name)
        elif count == 2:
            stop.cancel(name)
            if _held(frame):
                raise as_exit(name)
        elif leave:
            os._exit(EXIT_CODES.get(name, 128 + number))
        else:
            restore()
            signal.raise_signal(number)

    def restore() -> None:
        for number, old in before.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, old)
        before.clear()

    for name in _UNTOUCHED:
        number = getattr(signal, name)
        if _untouched(name, signal.getsignal(number)):
            before[number] = signal.signal(number, handler)
    try:
        yield stop
    finally:
        restore()


def _held(frame: FrameType | None) -> bool:
    """Whether the main thread is in a plain node, which the driver runs in place."""
    while frame is not None:
        if frame.f_code is drive.__code__:
            return True
        frame = frame.f_back
    return False


def as_exit(name: str, message: str = "") -> BaseException:
    """What ends a program after this signal: KeyboardInterrupt, or SystemExit with the signal's code."""
    if name == "SIGINT":
        return KeyboardInterrupt(message) if message else KeyboardInterrupt()
    return SystemExit(EXIT_CODES[name])


def _untouched(name: str, handler: Any) -> bool:
    """Whether nobody but Python, the event loop's runner, or a block around this one has set this handler."""
    function = getattr(handler, "func", handler)  # asyncio's is a partial
    module = getattr(function, "__module__", None) or ""
    return (
        module.partition(".")[0] in ("asyncio", "trio") or module == __name__ or handler is _UNTOUCHED[name]
    )


def _say(grace: float) -> Told:
    def say(name: str, count: int) -> None:
        if count == 1:
            text = (
                f"{name}: no more items are started; those in flight have {grace:g} s to end. "
                "Once more cancels them"
            )
        elif count == 2:
            text = f"{name}: cancelling what is in flight. Once more leaves at once"
        else:
            text = f"{name}: leaving"
        sys.stderr.write(f"\nasyncflow: {text}\n")
        sys.stderr.flush()

    return say
