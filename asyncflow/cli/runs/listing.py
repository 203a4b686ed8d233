"""`asyncflow runs list`."""

from __future__ import annotations

from typing import Any

from asyncflow.cli.store.reading import Found, opened
from asyncflow.cli.store.shown import for_people, moment, print_json, table
from asyncflow.cli.usage import UsageError

STATUSES = ("running", "finished", "failed", "stopped", "cancelled", "interrupted")


def list_runs(store: str | None, status: str | None, as_json: bool) -> int:
    """Print the runs; returns the exit code."""
    if status is not None and status not in STATUSES:
        raise UsageError(f"--status {status}: it is one of {', '.join(STATUSES)}")
    with opened(store) as stores:
        found = [summary(one) for one in stores.runs() if status in (None, one.how)]
        name, several = stores.name, len(stores.stores) > 1
    if as_json:
        print_json(found)
        return 0
    if not found:
        print(f"{name} holds no runs" + (f" that are {status}" if status else ""))
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
            *([one["store"]] if several else []),
        ]
        for one in found
    ]
    names = ["RUN", "STATUS", "NAME", "DONE", "FAILED", "STARTED (UTC)", "ENDED"]
    print("\n".join(table([*names, "STORE"] if several else names, rows)))
    return 0


def summary(found: Found) -> dict[str, Any]:
    """A run in a few figures. `started` is of the last session, `ended` too; None: nobody has closed it."""
    at, run, how = found
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
        "store": at.name,
    }
