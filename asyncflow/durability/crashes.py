"""Which items bring the process down? The rule, and nothing else.

An item that was in flight at three deaths of the process is under suspicion: it is run again alone, before
the others, so that its own death would be its doing. If the process dies then too, it is quarantined.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from asyncflow.durability.store import Death
from asyncflow.engine.journal import Verdict

#: Deaths before an item is run alone.
SUSPICIOUS = 3


def verdict(deaths: Sequence[bool]) -> Verdict:
    """What to do with an item that was in flight at these deaths; each says whether nothing else was.

    Only a lone death after the third one counts as the item's own: before, it ran among others, or nobody
    had reason to look.

    Example:
        >>> verdict([False, False]), verdict([False] * 3), verdict([False, False, False, True])
        ('run', 'alone', 'quarantine')
    """
    if len(deaths) < SUSPICIOUS:
        return "run"
    return "quarantine" if any(deaths[SUSPICIOUS:]) else "alone"


def verdicts(deaths: Iterable[Death]) -> dict[bytes, Verdict]:
    """The verdict for each key that is not simply run; the deaths come oldest first."""
    of_key: dict[bytes, list[bool]] = {}
    for death in deaths:
        of_key.setdefault(death.key, []).append(death.alone)
    found = {key: verdict(alone) for key, alone in of_key.items()}
    return {key: what for key, what in found.items() if what != "run"}
