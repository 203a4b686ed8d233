"""`asyncflow runs rm`."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, closing

from asyncflow.cli.runs.listing import summary
from asyncflow.cli.store.reading import Found, Opened, opened
from asyncflow.cli.store.shown import print_json, size
from asyncflow.cli.usage import UsageError
from asyncflow.durability.store import StoreWriter
from asyncflow.errors import StoreLockedError

_DAY = 86_400.0


def remove_runs(
    store: str | None, texts: list[str], older_than: float | None, yes: bool, shrink: bool, as_json: bool
) -> int:
    """Delete runs; returns the exit code: 0 done, 2 usage, 3 refused because it runs, or not confirmed."""
    with opened(store) as stores:
        chosen = _chosen(stores, texts, older_than)
        for at, run, how in chosen:
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
        if not yes and not _confirmed(chosen):
            print("Nothing was deleted.", file=sys.stderr)
            return 3
    sizes = _remove(chosen, shrink)
    ids = [run.id for _, run, _ in chosen]
    if as_json:
        known = [each for each in sizes.values() if each is not None]
        before, after = map(sum, zip(*known, strict=True)) if known else (None, None)
        print_json({"removed": ids, "bytes_before": before, "bytes_after": after})
        return 0
    print("Deleted: " + ", ".join(ids), file=sys.stderr)
    for name, found in sizes.items():
        if found is not None:
            print(f"{name}: {size(found[0])} before, {size(found[1])} now.", file=sys.stderr)
        elif not shrink:
            print(
                f"{name} keeps its size; new runs fill the space. rm without --no-shrink gives it back.",
                file=sys.stderr,
            )
    return 0


def _remove(chosen: list[Found], shrink: bool) -> dict[str, tuple[int, int] | None]:
    """Delete them, and make each store smaller. Returns the stores' sizes, where they are known.

    No run is deleted before all of the stores can be written to.
    """
    with ExitStack() as stack:
        stores = {at.name: at.store for at, _, _ in chosen}
        writers = {name: stack.enter_context(closing(store.open_writer())) for name, store in stores.items()}
        for at, run, _ in chosen:
            writers[at.name].remove(run.number)
        return {name: _shrunk(writer, name) if shrink else None for name, writer in writers.items()}


def _chosen(stores: Opened, texts: list[str], older_than: float | None) -> list[Found]:
    if not texts and older_than is None:
        raise UsageError("which run? Give ids (asyncflow runs list), @last, or --older-than DAYS")
    found = [stores.run(text) for text in texts]
    if older_than is not None:
        until = time.time() - older_than * _DAY
        for one in stores.runs():
            sessions = one.run.sessions
            if one.how != "running" and (sessions[-1].started if sessions else one.run.created) < until:
                found.append(one)
    return list({(one.at.name, one.run.number): one for one in found}.values())


def _confirmed(chosen: list[Found]) -> bool:
    """Say what would be lost, and ask. Where nobody can answer the answer is no."""
    for found in chosen:
        one = summary(found)
        print(
            f"{one['id']} ({one['status']}): {one['done']:,} results, {one['failed']:,} failures",
            file=sys.stderr,
        )
    if not sys.stdin.isatty():
        print("Deleting needs --yes where nobody can be asked.", file=sys.stderr)
        return False
    names = " and ".join(dict.fromkeys(found.at.name for found in chosen))
    print(f"Delete from {names} for good? [y/N] ", end="", file=sys.stderr, flush=True)
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
