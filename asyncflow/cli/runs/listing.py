"""`asyncflow runs list`."""

from __future__ import annotations

from typing import Any

from asyncflow.cli.store.reading import Opened, opened
from asyncflow.cli.store.shown import for_people, moment, print_json, table
from asyncflow.cli.usage import UsageError
from asyncflow.durability.store import RunRow

STATUSES = ("running", "finished", "failed", "stopped", "cancelled", "interrupted")


def list_runs(store: str, status: str | None, as_json: bool) -> int:
    """Print the runs; returns the exit code."""
    if status is not None and status not in STATUSES:
        raise UsageError(f"--status {status}: it is one of {', '.join(STATUSES)}")
    with opened(store) as at:
        found = [summary(at, run, how) for run, how in at.runs() if status in (None, how)]
    if as_json:
        print_json(found)
        return 0
    if not found:
        print(f"{at.name} holds no runs" + (f" that are {status}" if status else ""))
        return 0
    rows = [
        [
            one["id"],
            one["status"],
            one["name"],
            f"{one['done']:,}",
            f"{one['failed']:,}",
            for_people(one["started"]),
            for_people(one["ended"]),
        ]
        for one in found
    ]
    print("\n".join(table(["RUN", "STATUS", "NAME", "DONE", "FAILED", "STARTED (UTC)", "ENDED"], rows)))
    return 0


def summary(at: Opened, run: RunRow, how: str) -> dict[str, Any]:
    """A run in a few figures. `started` is of the last session, `ended` too; None: nobody has closed it."""
    counts = at.reader.counts(run.number)
    last = run.sessions[-1] if run.sessions else None
    return {
        "id": run.id,
        "name": run.name,
        "status": how,
        "created": moment(run.created),
        "sessions": len(run.sessions),
        "started": moment(last.started) if last else None,
        "ended": moment(last.ended) if last else None,
        "done": sum(each.done for each in counts),
        "failed": sum(each.failed for each in counts),
        "again": sum(each.again for each in counts),
    }
