"""asyncflow/observe/progress.py: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import sys
import threading
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from asyncflow import Retry, amap, clock
from asyncflow.events import (
    Event,
    ItemFinished,
    ItemRetrying,
    ItemStarted,
    ItemWaiting,
    NodeFinished,
    NodeStarted,
)
from asyncflow.observe import Progress
from asyncflow.observe import progress as module
from asyncflow.observe.tally import NodeTally, Tally
from asyncflow.outcome import Failed, Ok

ERROR = ValueError("no")


def terminal(width: int = 80, height: int = 25) -> Console:
    """A console that believes it is a terminal and writes into memory."""
    return Console(
        force_terminal=True,
        file=io.StringIO(),
        width=width,
        height=height,
        color_system=None,
        _environ={"TERM": "xterm"},
    )


def half_way(name: str, now: float, *, total: int | None = 10, failed: int = 1) -> list[Event]:
    """A node that began ten seconds ago: 5 have finished, one waits, one is between two attempts."""
    path = ("flow", name)
    return [
        NodeStarted(path, now - 10.0, total, 4),
        *(ItemFinished(path, now, Ok("x", index=n)) for n in range(5 - failed)),
        *(ItemFinished(path, now, Failed(ERROR, index=5 - n)) for n in range(failed)),
        *(ItemStarted(path, now, n, 1) for n in (6, 7, 8)),
        ItemWaiting(path, now, 6, "a limit"),
        ItemRetrying(path, now, 8, 1, 3.0, ERROR),
    ]


def drawn(events: list[Event], *, width: int = 80, height: int = 25) -> list[str]:
    """The rows that a terminal shows after these events."""
    tally = Tally()
    for event in events:
        tally(event)
    console = terminal(width, height)
    console.print(module._picture(tuple(tally.nodes.values()), width, height))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> float:
    """A moment at which the clock stands still."""
    monkeypatch.setattr(clock, "now", lambda: 1000.0)
    return 1000.0


# The picture on a terminal.


def test_a_row_says_everything(now: float) -> None:
    """Name, bar, counts, rate, time left, and where the items are, in one row."""
    (row,) = drawn(half_way("translate", now), width=100)
    assert re.fullmatch(
        r"translate [━╸╺ ]{10,} 5/10 0\.5/s 10 s left 1 failed, 1 retrying, 1 waiting, 1 running *", row
    )
    assert cell_len(row) <= 100


def test_the_bar_is_as_full_as_the_work() -> None:
    """Half of the items are half of the bar; it takes the room that is there."""
    path = ("n",)
    events = [NodeStarted(path, 0.0, 4, 1), *(ItemFinished(path, 1.0, Ok(0, index=n)) for n in range(2))]
    tally = Tally()
    for event in events:
        tally(event)
    console = Console(
        force_terminal=True, file=io.StringIO(), width=60, color_system="standard", _environ={"TERM": "xterm"}
    )
    console.print(module._picture(tuple(tally.nodes.values()), 60, 25))
    pieces = re.findall(r"\x1b\[[\d;]*m([━╸╺]+)", console.file.getvalue())  # type: ignore[attr-defined]
    full, rest = pieces[0], "".join(pieces[1:])
    assert len(full) + len(rest) > 20
    assert abs(len(full) - len(rest)) <= 1


def test_rows_stand_in_columns(now: float) -> None:
    """Nodes of different sizes have their figures beneath each other, at the right."""
    rows = drawn(half_way("a", now, total=10, failed=0) + half_way("longer", now, total=1000, failed=0))
    ends = [row.index("/s") for row in rows]
    assert ends[0] == ends[1]
    assert [row.index("left") for row in rows][0] == [row.index("left") for row in rows][1]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
def test_no_row_is_wider_than_the_terminal(width: int, now: float) -> None:
    """However narrow: one row a node, cut and not wrapped."""
    rows = drawn(half_way("a node with quite a long name", now, total=1_000_000), width=width)
    assert len(rows) == 1
    assert cell_len(rows[0]) <= width


def test_details_are_cut_before_the_figures(now: float) -> None:
    """At 60 columns counts, rate and time left are still whole, and there is still a bar."""
    (row,) = drawn(half_way("translate", now), width=60)
    assert re.match(r"translate [━╸╺ ]{9,} 5/10 0\.5/s 10 s left 1 fail", row)


def test_a_long_name_is_cut(now: float) -> None:
    """A name takes a quarter of the width at most."""
    (row,) = drawn(half_way("n" * 100, now))
    assert row.startswith("n" * 19 + "…")


def test_markup_in_a_name_is_text(now: float) -> None:
    """A name with brackets is shown as it is."""
    (row,) = drawn(half_way("[red]x[/red]", now))
    assert row.startswith("[red]x[/red] ")


def test_an_end_says_how_long_it_took() -> None:
    """After the end there is no time left, but the time it took, and nobody runs."""
    path = ("n",)
    (row,) = drawn([NodeStarted(path, 0.0, 1, 1), ItemFinished(path, 2.0, Ok(0)), NodeFinished(path, 2.0)])
    assert re.fullmatch(r"n ━+ 1/1 0\.5/s in 2\.0 s *", row)


def test_an_error_says_that_it_stopped() -> None:
    """A node that an error ended is not shown as if it had run to its end."""
    path = ("n",)
    (row,) = drawn([NodeStarted(path, 0.0, 4, 1), NodeFinished(path, 75.0, ERROR)])
    assert "0/4" in row and "stopped after 1:15 min" in row


def test_an_unknown_number_of_items(now: float) -> None:
    """Without a number there is a count and a rate, no time left, and the end fills the bar."""
    events = half_way("n", now, total=None)
    (row,) = drawn(events)
    assert " 5 0.5/s" in row and "left" not in row and "/10" not in row
    (row,) = drawn([*events, NodeFinished(("flow", "n"), now)])
    assert re.match(r"n ━+ 5 0\.5/s in 10\.0 s 1 failed", row)


def test_no_items_is_a_full_bar() -> None:
    """A node with nothing to do has ended well."""
    (row,) = drawn([NodeStarted(("n",), 0.0, 0, 1), NodeFinished(("n",), 0.0)])
    assert re.match(r"n ━+ 0/0 0\.0/s in 0\.0 s", row)


def test_more_nodes_than_rows(now: float) -> None:
    """On a low terminal those that still run are shown, and of the others the last."""
    events: list[Event] = []
    for n in range(20):
        events += [NodeStarted((f"over{n}",), 0.0, 1, 1), NodeFinished((f"over{n}",), 1.0)]
        events += half_way(f"node{n}", now) if n < 3 else []
    rows = drawn(events, height=6)
    assert [row.split()[0] for row in rows] == ["over18", "over19", "node0", "node1", "node2"]


def test_nothing_yet_is_no_row() -> None:
    """Before the first node there is nothing to draw, and nothing breaks."""
    assert [row for row in drawn([]) if row.strip()] == []


# The context manager, with the engine.


async def double(n: int) -> int:
    await asyncio.sleep(0)
    return 2 * n


def test_on_a_terminal_it_draws() -> None:
    """A run on a terminal leaves one full row behind, with the cursor shown again."""
    console = terminal()
    with Progress(console=console) as progress:
        asyncio.run(amap(double, range(30), observers=[progress]))
    out = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"double ━{20,} 30/30 [\d,.]+/s in 0\.\d s *\n[^━]*\Z", out)
    assert out.rindex("\x1b[?25h") > out.rindex("\x1b[?25l")


def test_it_draws_while_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture with 1 of 2 done is on the screen before the second item may end."""
    monkeypatch.setattr(module, "FRAME_SECONDS", 0.001)
    seen = threading.Event()

    class Screen(io.StringIO):
        def write(self, text: str) -> int:
            if " 1/2 " in text:
                seen.set()
            return super().write(text)

    console = Console(
        force_terminal=True, file=Screen(), width=80, color_system=None, _environ={"TERM": "xterm"}
    )

    def work(n: int) -> bool:
        return n == 0 or seen.wait(20)

    with Progress(console=console) as progress:
        assert asyncio.run(amap(work, range(2), concurrency=2, observers=[progress])) == [True, True]


def test_a_run_that_fails_restores_the_terminal() -> None:
    """After an error the cursor is back, no thread is left, and the error is the user's own."""
    console = terminal()

    async def fail(n: int) -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"), Progress(console=console) as progress:
        asyncio.run(amap(fail, range(3), observers=[progress]))
    out = console.file.getvalue()  # type: ignore[attr-defined]
    assert "stopped after" in out
    assert out.rindex("\x1b[?25h") > out.rindex("\x1b[?25l")
    assert not [thread for thread in threading.enumerate() if thread.name == "asyncflow-progress"]


def test_off_a_terminal_it_writes_a_line_for_each_node() -> None:
    """One line at the end of each, with counts and rate, and no control characters."""
    out = io.StringIO()
    with Progress(stream=out) as progress:
        asyncio.run(amap(double, range(1200), observers=[progress]))
    assert re.fullmatch(r"double: 1,200/1,200 done, [\d,.]+/s, in \d\.\d s\n", out.getvalue())


def test_off_a_terminal_it_uses_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A console that is no terminal gets no bars; standard output stays clean."""
    console = Console(file=io.StringIO(), force_terminal=False)
    with Progress(console=console) as progress:
        asyncio.run(amap(double, range(3), observers=[progress]))
    captured = capsys.readouterr()
    assert "double: 3/3 done" in captured.err
    assert captured.out == "" and console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_a_dumb_terminal_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A terminal that cannot move its cursor gets plain lines."""
    console = Console(force_terminal=True, file=io.StringIO(), _environ={"TERM": "dumb"})
    with Progress(console=console) as progress:
        asyncio.run(amap(double, range(3), observers=[progress]))
    assert "double: 3/3 done" in capsys.readouterr().err


def test_lines_count_failures() -> None:
    """What failed is said, and a retried item that came through is not."""
    out, refused = io.StringIO(), []

    async def work(n: int) -> None:
        if n == 1:
            raise ValueError("never")
        if n == 2 and not refused:
            refused.append(n)
            raise ConnectionError("once")

    with Progress(stream=out) as progress:
        asyncio.run(amap(work, range(4), retry=Retry(wait=0), on_error="continue", observers=[progress]))
    assert re.fullmatch(r"\S*work: 4/4 done, [\d,.]+/s, in \d\.\d s, 1 failed\n", out.getvalue())


def line_of(*events: Event) -> str:
    tally = Tally()
    for event in events:
        tally(event)
    (node,) = tally.nodes.values()
    return module._text(node)


def test_a_line_on_the_way(now: float) -> None:
    """A line in the middle names the whole path, what is left, and where the items are."""
    assert line_of(*half_way("n", now)) == (
        "flow / n: 5/10 done, 0.5/s, 10 s left, 1 failed, 1 retrying, 1 waiting, 1 running"
    )


def test_a_line_comes_every_ten_seconds_and_at_the_end() -> None:
    """Never one for each item or each look, and the end is written once; a new visit has an end again."""
    node = NodeTally(("n",), total=4)
    line = module._Line(100.0)
    due = [at for at in range(100, 131) if line.is_due(node, float(at))]
    assert due == [110, 120, 130]
    node.ended = 131.0
    assert [line.is_due(node, now) for now in (131.0, 132.0, 200.0)] == [True, False, False]
    node.ended = None
    assert not line.is_due(node, 133.0)
    node.ended = 134.0
    assert line.is_due(node, 134.0)


def test_it_never_breaks_a_run(caplog: pytest.LogCaptureFixture) -> None:
    """A closed stream ends the display, with one warning, and nothing else."""
    out = io.StringIO()
    out.close()
    with caplog.at_level(logging.WARNING, "asyncflow"), Progress(stream=out) as progress:
        assert asyncio.run(amap(double, range(3), observers=[progress])) == [0, 2, 4]
    assert [record.getMessage() for record in caplog.records] == [
        "asyncflow: the progress cannot be shown any longer"
    ]


def test_importing_it_loads_no_rich() -> None:
    """The room is cheap to import: rich is loaded when something is drawn."""
    import subprocess

    code = "import sys, asyncflow.observe; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_unused(now: Any) -> None:
    """Opened and closed without a run it leaves nothing."""
    out = io.StringIO()
    with Progress(stream=out):
        pass
    assert out.getvalue() == ""


def test_one_that_is_not_entered_says_how(caplog: pytest.LogCaptureFixture) -> None:
    """It would show nothing, silently."""

    async def work(number: int) -> int:
        return number

    assert asyncio.run(amap(work, range(3), observers=[Progress()])) == [0, 1, 2]
    assert "shows nothing outside its `with Progress() as progress:`" in caplog.text
    caplog.clear()
    with Progress(stream=io.StringIO()) as progress:
        asyncio.run(amap(work, range(3), observers=[progress]))
    assert not caplog.text
