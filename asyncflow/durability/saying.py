"""What a stored run says to people: what a resume has found, and how to go on with what was stopped."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from asyncflow.engine.journal import RetryFailed


@dataclass(frozen=True, slots=True)
class Counts:
    """What a resumed run finds. All counts are of items.

    Attributes:
        done: With a result.
        failed: With a failure that nothing has replaced.
        in_flight: At work when the last process ended.
        suspects: Of those, how many are run alone or quarantined, for having seen three deaths.
        dropped: With a result or a failure that does not hold any more, since the program has changed.
    """

    done: int = 0
    failed: int = 0
    in_flight: int = 0
    suspects: int = 0
    dropped: int = 0


def banner(counts: Counts, total: int | None = None, *, retry_failed: RetryFailed = True) -> str:
    """What a resume says first.

    Args:
        total: How many items there are now, where that is known. What is recorded may be of others.

    Example:
        >>> banner(Counts(8412, 37, 18), 10_000)
        '8,412 of 10,000 done and kept, 37 failed will be retried, 18 were in flight, 1,533 not started'
    """
    known = counts.done + counts.failed + counts.in_flight
    fits = total is not None and known <= total
    parts = [f"{counts.done:,}{f' of {total:,}' if fits else ''} done and kept"]
    if counts.failed:
        parts.append(f"{counts.failed:,} failed {'will be retried' if retry_failed else 'stay failed'}")
    if counts.in_flight:
        parts.append(f"{counts.in_flight:,} {'were' if counts.in_flight > 1 else 'was'} in flight")
    if total is not None and known < total:
        rest = f"{total - known:,} not started"
        parts.append(f"{rest}, which are left" if retry_failed == "only" else rest)
    elif total is not None and not fits:
        parts.append(f"the input has {total:,} now")
    if counts.dropped:
        parts.append(f"{counts.dropped:,} dropped")
    if counts.suspects:
        parts.append(f"{counts.suspects:,} under suspicion of ending the process")
    return ", ".join(parts)


def how_to_resume(run_id: str, store: Any, *, given: bool) -> str:
    """The line that goes on with a run that was stopped.

    Args:
        given: Whether the program names the run itself, so that starting it again is enough.

    Example:
        >>> how_to_resume("tuesday", "runs.db", given=False)
        "run tuesday is kept in runs.db; to go on with it: run_sync(…, store='runs.db', run_id='tuesday')"
    """
    where = _place(store)
    command = _command() if given else None
    line = f"run_sync(…, store={str(where)!r}, run_id={run_id!r})" if command is None else command
    return f"run {run_id} is kept in {where}; to go on with it: {line}"


def _place(store: Any) -> str:
    """Where it is, as the program would name it, without a password."""
    if not isinstance(store, str) or "://" not in store:
        return str(getattr(store, "path", store))
    if "@" not in store:
        return store.partition("?")[0]
    parts = urlsplit(store)
    who = f"{parts.username}@" if parts.username else ""
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit((parts.scheme, f"{who}{parts.hostname or ''}{port}", parts.path, "", ""))


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
