"""What a resumed run says first."""

from __future__ import annotations

from collections.abc import Sequence

from asyncflow.cli.map.kept import Standing
from asyncflow.durability import Counts, banner


def said_first(standing: Standing, rows: int, *, only_failed: bool, dropped: Sequence[str]) -> str:
    """What is there and what will be done.

    Args:
        standing: What the run has of the input's rows.
        rows: How many the input has.
        only_failed: Only the failed ones are asked.
        dropped: How what is asked has changed, where results of before are dropped for it.

    Example:
        >>> said_first(Standing(8412, 37, 18), 10_000, only_failed=False, dropped=())
        '8,412 of 10,000 done and kept, 37 failed will be retried, 18 were in flight, 1,533 not started'
        >>> said_first(Standing(3), 3, only_failed=False, dropped=())
        '3 of 3 done and kept; nothing is left to ask'
        >>> said_first(Standing(5, 1), 10, only_failed=True, dropped=())
        '5 of 10 done and kept, 1 failed will be retried, 4 not started are left alone'
    """
    if dropped:
        text = (
            f"{standing.done:,} results of before are dropped: {'; '.join(dropped)}. All rows are asked again"
        )
    else:
        text = banner(Counts(standing.done, standing.failed, standing.in_flight), rows)
        if only_failed:
            text += " are left alone" if "not started" in text else ""
        elif standing.done == rows:
            text += "; nothing is left to ask"
    if standing.gone:
        text += f" ({standing.gone:,} of before are no longer in the input)"
    return text
