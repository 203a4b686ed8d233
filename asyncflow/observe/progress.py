"""`Progress`: live bars on a terminal, plain lines where there is none."""

from __future__ import annotations

import logging
import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from asyncflow import clock
from asyncflow.events import Event, RunStarted
from asyncflow.observe.tally import NodeTally, Tally

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

#: Seconds between two lines where there is no terminal to draw on.
LINE_SECONDS = 10.0
#: Seconds between two pictures on a terminal.
FRAME_SECONDS = 0.1
#: The narrowest bar, in characters.
BAR = 10

_log = logging.getLogger("asyncflow")


class Progress:
    """Shows each node's items: how many are done, failed, waiting and retrying, the rate, the time left.

    A context manager and an observer in one. On a terminal it draws with rich; elsewhere it writes one line
    for each node every 10 seconds and one at its end, never one for each item. Where it cannot write it shows
    nothing more, and logs a warning; the run goes on.

    Args:
        console: A rich Console to draw on; by default a new one on standard error.
        stream: Where plain lines go; given one, nothing is drawn.

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
        self._live: Live | None = None
        self._lines: dict[tuple[str, ...], _Line] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self, event: Event) -> None:
        if self._thread is None and isinstance(event, RunStarted):
            _log.warning("asyncflow: a Progress shows nothing outside its `with Progress() as progress:`")
        self._tally(event)

    def __enter__(self) -> Progress:
        if self._stream is None:
            from rich.console import Console

            console = self._console or Console(stderr=True)
            if console.is_terminal and not console.is_dumb_terminal:
                self._live = _live(console, self._tally)
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
        try:
            if self._live is not None:
                self._live.refresh()
            elif self._stream is not None:
                self._write(self._stream)
        except (OSError, ValueError):  # a closed terminal, pipe or file
            self._stream = None
            _log.warning("asyncflow: the progress cannot be shown any longer", exc_info=True)

    def _write(self, stream: TextIO) -> None:
        for node in tuple(self._tally.nodes.values()):
            line = self._lines.setdefault(node.path, _Line(time.monotonic()))
            if line.is_due(node, time.monotonic()):
                stream.write(_text(node) + "\n")
                stream.flush()


class _Line:
    """When a node's line was last written."""

    def __init__(self, now: float) -> None:
        self._at = now
        self._ended: float | None = None

    def is_due(self, node: NodeTally, now: float) -> bool:
        """Whether it is time for another one; if so, it counts as written."""
        due = now - self._at >= LINE_SECONDS if node.ended is None else node.ended != self._ended
        if due:
            self._at, self._ended = now, node.ended
        return due


def _text(node: NodeTally) -> str:
    """A node's line where there is no terminal."""
    count, rate, left = _figures(node)
    parts = (f"{count} done", rate, left, _detail(node))
    return f"{' / '.join(node.path)}: {', '.join(part for part in parts if part)}"


def _live(console: Console, tally: Tally) -> Live:
    from rich.live import Live

    # Two columns stay free: the terminal writes ^C there, and a line that then wraps breaks the picture.
    return Live(
        get_renderable=lambda: _picture(tuple(tally.nodes.values()), console.width - 2, console.height),
        console=console,
        auto_refresh=False,
    )


def _picture(nodes: tuple[NodeTally, ...], width: int, height: int) -> Table:
    """One row for each node; where they are more than the terminal is high, those that run, and the last.

    The bar takes what room there is, and the details are cut before it gets too short.
    """
    from rich.cells import cell_len
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    if len(nodes) > height - 1:
        nodes = tuple(sorted(nodes, key=lambda node: node.ended is None))[1 - height :]
    rows = [(node.path[-1], *_figures(node), _detail(node)) for node in nodes]
    widths = [max((cell_len(row[n]) for row in rows), default=0) for n in range(5)]
    name = min(widths[0], max(8, width // 4))
    room = width - name - sum(widths[1:4]) - 5
    detail = min(widths[4], max(0, room - BAR))
    table = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
    columns = zip((name, max(1, room - detail), *widths[1:4], detail), "llrrrl", strict=True)
    for size, side in columns:
        table.add_column(
            width=size, no_wrap=True, overflow="ellipsis", justify="left" if side == "l" else "right"
        )
    for node, (label, count, rate, left, more) in zip(nodes, rows, strict=True):
        over = node.ended is not None
        # A bar of nothing is full at its end; one of an unknown number moves until then.
        total = node.total if node.total is not None else node.finished if over else None
        bar = ProgressBar(
            total=max(1, total) if total is not None else None,
            completed=node.finished if total else int(over),
            pulse=total is None,
            animation_time=time.monotonic(),
        )
        table.add_row(Text(label), bar, count, rate, left, Text(more, style="red" if node.failed else ""))
    return table


def _figures(node: NodeTally) -> tuple[str, str, str]:
    """How many are done, how fast, and how long it will take or took.

    Example:
        >>> _figures(NodeTally(("a",), total=4, done=4, ended=9.0, _spent=2.0))
        ('4/4', '2.0/s', 'in 2.0 s')
    """
    now = clock.now()
    count = f"{node.finished:,}" if node.total is None else f"{node.finished:,}/{node.total:,}"
    rate = _rate(node.rate(now))
    if node.ended is not None:
        seconds = node.seconds(now)
        took = f"{seconds:.1f} s" if seconds < 59.95 else _duration(seconds)
        return count, rate, f"{'stopped after' if node.stopped else 'in'} {took}"
    left = node.left(now)
    return count, rate, "" if left is None else f"{_duration(left)} left"


def _detail(node: NodeTally) -> str:
    parts = (
        (node.failed, "failed"),
        (node.skipped, "skipped"),
        (node.retrying, "retrying"),
        (node.waiting, "waiting"),
        (node.running - node.waiting, "running"),  # at work, or on the way to the disk
    )
    return ", ".join(f"{count:,} {word}" for count, word in parts if count)


def _rate(per_second: float) -> str:
    """A rate for people.

    Example:
        >>> _rate(1234.56), _rate(0.05), _rate(0.0)
        ('1,234.6/s', '3.0/min', '0.0/s')
    """
    return f"{per_second:,.1f}/s" if per_second >= 0.1 or not per_second else f"{per_second * 60:.1f}/min"


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
