"""`asyncflow runs rm`."""

from __future__ import annotations

import sys
import time

from asyncflow.cli.runs.listing import summary
from asyncflow.cli.store.reading import Opened, opened
from asyncflow.cli.store.shown import print_json, size
from asyncflow.cli.usage import UsageError
from asyncflow.durability.store import RunRow, StoreWriter
from asyncflow.errors import StoreLockedError

_DAY = 86_400.0


def remove_runs(
    store: str, texts: list[str], older_than: float | None, yes: bool, shrink: bool, as_json: bool
) -> int:
    """Delete runs; returns the exit code: 0 done, 2 usage, 3 refused because it runs, or not confirmed."""
    with opened(store) as at:
        chosen = _chosen(at, texts, older_than)
        for run, how in chosen:
            if how == "running":
                raise StoreLockedError(
                    f"{run.id} is running in {at.store.holder(run.id)}: end it first, then delete it"
                )
        if not chosen:
            if as_json:
                print_json({"removed": [], "bytes_before": None, "bytes_after": None})
            else:
                print("There is nothing to delete.", file=sys.stderr)
            return 0
        if not yes and not _confirmed(at, chosen):
            print("Nothing was deleted.", file=sys.stderr)
            return 3
        writer = at.store.open_writer()
    try:
        for run, _ in chosen:
            writer.remove(run.number)
        sizes = _shrunk(writer, at.name) if shrink else None
    finally:
        writer.close()
    ids = [run.id for run, _ in chosen]
    if as_json:
        before, after = sizes or (None, None)
        print_json({"removed": ids, "bytes_before": before, "bytes_after": after})
        return 0
    print("Deleted: " + ", ".join(ids), file=sys.stderr)
    if sizes is not None:
        print(f"{at.name}: {size(sizes[0])} before, {size(sizes[1])} now.", file=sys.stderr)
    elif not shrink:
        print(
            f"{at.name} keeps its size; new runs fill the space. rm without --no-shrink gives it back.",
            file=sys.stderr,
        )
    return 0


def _chosen(at: Opened, texts: list[str], older_than: float | None) -> list[tuple[RunRow, str]]:
    if not texts and older_than is None:
        raise UsageError("which run? Give ids (asyncflow runs list), @last, or --older-than DAYS")
    found = {run.id: (run, how) for run, how in (at.run(text) for text in texts)}
    if older_than is not None:
        until = time.time() - older_than * _DAY
        for run, how in at.runs():
            if how != "running" and (run.sessions[-1].started if run.sessions else run.created) < until:
                found[run.id] = (run, how)
    return list(found.values())


def _confirmed(at: Opened, chosen: list[tuple[RunRow, str]]) -> bool:
    """Say what would be lost, and ask. Where nobody can answer the answer is no."""
    for run, how in chosen:
        one = summary(at, run, how)
        print(f"{run.id} ({how}): {one['done']:,} results, {one['failed']:,} failures", file=sys.stderr)
    if not sys.stdin.isatty():
        print("Deleting needs --yes where nobody can be asked.", file=sys.stderr)
        return False
    print(f"Delete from {at.name} for good? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _shrunk(writer: StoreWriter, name: str) -> tuple[int, int] | None:
    try:
        return writer.compact()
    except Exception as exc:  # a full disk: the runs are gone all the same
        reason = getattr(exc, "orig", None) or exc
        print(
            f"{name} could not be made smaller: {reason}. It needs as much free space as the file has, for a "
            "moment; the next rm tries again, and new runs fill the space meanwhile",
            file=sys.stderr,
        )
        return None
