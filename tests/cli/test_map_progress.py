"""What the progress of `asyncflow map` shows of a row that the client tries again."""

from __future__ import annotations

from asyncflow.cli.map.shown import Shown
from asyncflow.events import ItemFinished, ItemResumed, ItemStarted, ItemWaiting, NodeStarted
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
