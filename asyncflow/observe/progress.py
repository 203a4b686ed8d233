"""`Progress`: live bars on a terminal, plain lines where there is none."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from asyncflow import clock
from asyncflow.events import Event
from asyncflow.observe.tally import NodeTally, Tally

if TYPE_CHECKING:
    from rich.console import Console

#: Seconds between two lines where there is no terminal to draw on.
LINE_SECONDS = 10.0
#: Seconds between two pictures on a terminal.
FRAME_SECONDS = 0.1


class Progress:
    """Shows each node's items: how many are done, failed, waiting and retrying, the rate, the time left.

    A context manager and an observer in one. On a terminal it draws with rich; elsewhere it writes one line
    for each node every 10 seconds and one at its end, never one for each item.

    Args:
        console: A rich Console to draw on; by default a new one on standard error.
        stream: Where plain lines go, if there is no terminal.

    Example:
        >>> import asyncio, io
        >>> from asyncflow import amap
        >>> async def double(number):
        ...     return 2 * number
        >>> with Progress(stream=io.StringIO()) as progress:
        ...     asyncio.run(amap(double, range(3), observers=[progress]))
        [0, 2, 4]
    """

    def __init__(self, *, console: Console | None = None, stream: TextIO | None = None) -> None:
        self._tally = Tally()
        self._stream = stream
        self._console = console
        self._live: Any = None
        self._tasks: dict[tuple[str, ...], Any] = {}
        self._shown: dict[tuple[str, ...], tuple[float, bool]] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self, event: Event) -> None:
        self._tally(event)

    def __enter__(self) -> Progress:
        if self._stream is None:
            from rich.console import Console

            console = self._console or Console(stderr=True)
            if console.is_terminal:
                self._live = _bars(console)
                self._live.start()
            else:
                self._stream = sys.stderr
        self._thread = threading.Thread(target=self._refresh, name="asyncflow-progress", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._show()
        if self._live is not None:
            self._live.stop()

    def _refresh(self) -> None:
        while not self._stop.wait(FRAME_SECONDS):
            self._show()

    def _show(self) -> None:
        for node in tuple(self._tally.nodes.values()):
            if self._live is not None:
                self._draw(node)
            else:
                self._write(node)

    def _draw(self, node: NodeTally) -> None:
        now = node.ended or clock.now()
        left = node.left(now)
        task = self._tasks.get(node.path)
        if task is None:
            task = self._tasks[node.path] = self._live.add_task(node.path[-1], total=node.total)
        self._live.update(
            task,
            completed=node.finished,
            total=node.total if node.total is not None or node.ended is None else node.finished,
            detail=_detail(node),
            rate=f"{node.rate(now):,.1f}/s",
            left="" if left is None or node.ended is not None else f"{_duration(left)} left",
        )

    def _write(self, node: NodeTally) -> None:
        at, ended = self._shown.get(node.path, (time.monotonic(), False))
        over = node.ended is not None
        if (ended and over) or (not over and time.monotonic() - at < LINE_SECONDS):
            self._shown.setdefault(node.path, (at, False))
            return
        self._shown[node.path] = (time.monotonic(), over)
        now = node.ended or clock.now()
        left = node.left(now)
        total = f"/{node.total:,}" if node.total is not None else ""
        remaining = f", {_duration(left)} left" if left is not None and not over else ""
        if self._stream is not None:
            self._stream.write(
                f"{' / '.join(node.path)}: {node.finished:,}{total} done, {node.rate(now):,.1f}/s"
                f"{remaining}{', ' + _detail(node) if _detail(node) else ''}\n"
            )
            self._stream.flush()


def _bars(console: Console) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    return Bars(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[detail]}"),
        console=console,
        refresh_per_second=10,
    )


def _detail(node: NodeTally) -> str:
    parts = (
        (node.failed, "failed"),
        (node.retrying, "retrying"),
        (node.waiting, "waiting"),
        (node.running, "running") if node.ended is None else (0, ""),
    )
    return ", ".join(f"{count:,} {word}" for count, word in parts if count)


def _duration(seconds: float) -> str:
    """A duration for people.

    Example:
        >>> _duration(3.2), _duration(75), _duration(7300)
        ('3 s', '1:15 min', '2:01 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
