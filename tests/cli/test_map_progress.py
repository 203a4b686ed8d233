"""What the progress of `asyncflow map` shows of a row that the client tries again."""

from __future__ import annotations

from asyncflow.cli.map.shown import Shown
from asyncflow.events import ItemFinished, ItemResumed, ItemStarted, ItemWaiting, LanePaused, NodeStarted
from asyncflow.observe.tally import Tally
from asyncflow.outcome import Ok

PATH = ("rows",)


def test_a_row_between_two_attempts_is_retrying() -> None:
    """Before its next attempt a row is retrying, in a line it is waiting; the number of rows is known."""
    tally = Tally()
    shown = Shown(tally, rows=3)
    shown(NodeStarted(PATH, 0.0, None, 2))
    node = tally.nodes[PATH]
    shown(ItemStarted(PATH, 0.0, 0, 1))

    def now() -> tuple[int, int, int]:
        return node.running, node.waiting, node.retrying

    assert (node.total, now()) == (3, (1, 0, 0))
    for _ in range(2):
        shown(ItemWaiting(PATH, 1.0, 0, "retry"))
        assert now() == (0, 0, 1)
        shown(ItemResumed(PATH, 2.0, 0))
        assert now() == (1, 0, 0)
        shown(ItemWaiting(PATH, 3.0, 0, "rate limit"))
        assert now() == (1, 1, 0)
        shown(ItemResumed(PATH, 4.0, 0))
        assert now() == (1, 0, 0)
    shown(ItemFinished(PATH, 5.0, Ok(None, index=0)))
    assert (node.done, now()) == (1, (0, 0, 0))


def test_a_long_pause_is_told_with_its_reason() -> None:
    """Once in a while; short ones, which are many under a quota, are not."""
    told: list[str] = []
    shown = Shown(Tally(), rows=3, tell=told.append)
    for at, seconds in ((0.0, 0.5), (1.0, 5.0), (3.0, 10.0), (11.0, 20.0)):
        shown(LanePaused("m", at, seconds, "20 failures in a row"))
    assert told == [f"nothing is sent for {n} s: 20 failures in a row" for n in (5, 20)]
