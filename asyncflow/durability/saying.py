"""What a stored run says to the person at the terminal: how to go on."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any


def how_to_resume(run_id: str, store: Any, *, given: bool) -> str:
    """The line that goes on with a run that was stopped.

    Args:
        given: Whether the program names the run itself, so that starting it again is enough.

    Example:
        >>> how_to_resume("tuesday", "runs.db", given=False)
        "run tuesday is kept in runs.db; to go on with it: run_sync(…, store='runs.db', run_id='tuesday')"
    """
    where = getattr(store, "path", store)
    command = _command() if given else None
    line = f"run_sync(…, store={str(where)!r}, run_id={run_id!r})" if command is None else command
    return f"run {run_id} is kept in {where}; to go on with it: {line}"


def _command() -> str | None:
    """How this program was started; None where nobody could start it so again (a console, a notebook).

    Without its arguments, among which may be what nobody else should read in a log.
    """
    if hasattr(sys, "ps1") or sys.flags.interactive or sys.argv[:1] in ([], [""], ["-c"]):
        return None
    count = len(sys.argv) - 1
    head = sys.orig_argv[: len(sys.orig_argv) - count]
    line = shlex.join([Path(head[0]).name, *head[1:]])
    return f"{line}, with the same arguments" if count else line
