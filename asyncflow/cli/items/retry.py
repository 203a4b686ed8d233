"""`asyncflow items retry`: a record that says that an item is to run again, whatever became of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from asyncflow.cli.items.listing import the_item
from asyncflow.cli.store.items import Items, records_of
from asyncflow.cli.store.reading import One, opened
from asyncflow.cli.store.shown import print_json
from asyncflow.cli.usage import UsageError
from asyncflow.durability.crashes import verdicts
from asyncflow.durability.store import AGAIN, Record, RunRow, Store
from asyncflow.errors import StoreLockedError

#: Records that are written at once.
_GROUP = 900


def retry_items(
    store: str | None, text: str, names: list[str], failed: bool, done: bool, as_json: bool
) -> int:
    """Mark items; returns the exit code: 0 done, 2 usage, 3 refused because the run is running."""
    if not names and not failed:
        raise UsageError("which items? Name them (asyncflow items list --failed), or give --failed for all")
    with opened(store) as stores:
        at, run, how = stores.run(text)
        if how == "running":
            raise StoreLockedError(f"{run.id} is running in {at.store.holder(run.id)}: end it first")
        chosen = {(record.place, record.key): record for record in _named(at, run, names, done)}
        if failed:
            items = Items(at.reader, run)
            for record in records_of(at.reader, run):
                if items.outcome(record) == "failed":
                    chosen[record.place, record.key] = record
            for record in _suspects(at, run):
                chosen.setdefault((record.place, record.key), record)
    if chosen:
        _mark(at.store, run, how, list(chosen.values()))
    if as_json:
        print_json({"run": run.id, "marked": [record.key.hex() for record in chosen.values()]})
    elif not chosen:
        print(f"{run.id} has no failed items: nothing to do", file=sys.stderr)
    else:
        what = "1 item runs" if len(chosen) == 1 else f"{len(chosen):,} items run"
        print(f"{what} again when {run.id} goes on", file=sys.stderr)
    return 0


def _named(at: One, run: RunRow, names: list[str], done: bool) -> Iterator[Record]:
    items = Items(at.reader, run)
    suspects = {record.key.hex(): record for record in _suspects(at, run)}
    for name in names:
        held = [record for key, record in suspects.items() if key.startswith(name.lower())]
        record = held[0] if len(held) == 1 else the_item(at, run, name)
        if record not in held and items.outcome(record) == "ok" and not done:
            raise UsageError(f"item {name} has a result, which would be given up: say --done if it should be")
        yield record


def _suspects(at: One, run: RunRow) -> list[Record]:
    """Items that may not run with others, or not at all, as records to take the place of."""
    held = verdicts(at.reader.deaths(run.number))
    places = {death.key: death.place for death in at.reader.deaths(run.number)}
    return [
        Record(run.number, places[key], key, 0, AGAIN, 0, -1, None, 0.0, 0.0, b"null", None) for key in held
    ]


def _mark(store: Store, run: RunRow, how: str, chosen: list[Record]) -> None:
    now = time.time()
    writer = store.open_writer()
    try:
        _, session = writer.start(run.id, run.name, run.fingerprint, now)
        for start in range(0, len(chosen), _GROUP):
            group = [
                record._replace(
                    session=session, kind=AGAIN, attempts=0, began=now, at=now, data=b"null", usage=None
                )
                for record in chosen[start : start + _GROUP]
            ]
            writer.append([], group)
        writer.end(session, how, time.time())  # how the run stands has not changed
    finally:
        writer.close()
