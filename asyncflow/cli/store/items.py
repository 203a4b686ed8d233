"""A run's records as rows: what is known of each item, in the order in which items ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from asyncflow.cli.store.shown import moment
from asyncflow.cli.tables.values import plain as json_value
from asyncflow.durability.journal import nodes_of
from asyncflow.durability.plain import plain
from asyncflow.durability.store import ACTION, AGAIN, FAILED, PlaceRow, Record, RunRow, StoreReader

#: Columns of an item in a table, with the kinds of their values.
COLUMNS = {
    "run": "text",
    "node": "text",
    "path": "text",
    "visit": "int",
    "id": "text",
    "position": "int",
    "key": "text",
    "outcome": "text",
    "value": "json",
    "error.kind": "text",
    "error.message": "text",
    "attempts": "int",
    "began": "text",
    "ended": "text",
    "seconds": "float",
    "usage.input_tokens": "int",
    "usage.output_tokens": "int",
    "usage.cached_input_tokens": "int",
    "cost": "float",
}

#: Records that are read at once.
_AT_ONCE = 500


def records_of(reader: StoreReader, run: RunRow) -> Iterator[Record]:
    """The records of a run's items that count, with flat memory. Within `snapshot` each item comes once."""
    after = 0
    while found := reader.following(run.number, after, _AT_ONCE):
        after = found[-1][0]
        yield from (record for _, record in found if record.kind != ACTION)


class Items:
    """Makes rows of a run's records.

    Args:
        reader: Of the run's store.
        run: The run.
    """

    def __init__(self, reader: StoreReader, run: RunRow) -> None:
        self._run = run
        self._since: dict[str, int] = json.loads(run.fingerprint).get("since", {})
        self._places = {place.id: place for place in reader.named_places(run.number)}

    def outcome(self, record: Record) -> str:
        """`"ok"`, `"failed"`, `"again"` (it is to run again), or `"dropped"` (by `changed="drop"`)."""
        path = self._place(record).path
        if record.session <= self._since.get("/".join(nodes_of(path)), 0):
            return "dropped"
        return {FAILED: "failed", AGAIN: "again"}.get(record.kind, "ok")

    def node(self, record: Record) -> str:
        """The names from the outermost flow to the node."""
        return " / ".join(nodes_of(self._place(record).path))

    def _place(self, record: Record) -> PlaceRow:
        unnamed = PlaceRow(record.place, self._run.number, ("?",), 0)  # nothing of it was ever committed
        return self._places.get(record.place, unnamed)

    def row(self, record: Record, *, traceback: bool = False) -> dict[str, Any]:
        """All that is known of an item.

        `id` is what the store knows it by, `key` what the program calls it where that was recorded;
        `position` is its index in the input of the session that ended it; `path` tells runs of a batch flow
        apart, which have the same `node`.
        """
        usage = json.loads(record.usage) if record.usage else None
        cost = usage.pop("cost", None) if usage else None
        failed = json.loads(record.data) if record.kind == FAILED else None
        error = None if failed is None else {"kind": failed["kind"], "message": failed["text"]}
        if error is not None and failed is not None and traceback:
            error["traceback"] = failed["traceback"]
        ran = record.kind != AGAIN
        return {
            "run": self._run.id,
            "node": self.node(record),
            "path": " / ".join(self._place(record).path),
            "visit": self._place(record).visit,
            "id": record.key.hex(),
            "position": record.position if record.position >= 0 else None,
            "key": record.label,
            "outcome": self.outcome(record),
            "value": json_value(plain(record.data)) if failed is None and ran else None,
            "error": error,
            "attempts": (failed or {}).get("attempts", record.attempts) if ran else 0,
            "began": moment(record.began, exact=True) if ran else None,
            "ended": moment(record.at, exact=True) if ran else None,
            "seconds": round(record.at - record.began, 6) if ran else None,
            "usage": usage,
            "cost": cost,
        }


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row as cells of a table, by column."""
    cells = {}
    for column in COLUMNS:
        outer, _, inner = column.partition(".")
        value = row[outer]
        cells[column] = (value or {}).get(inner) if inner else value
    return cells
