"""`asyncflow items list` and `show`."""

from __future__ import annotations

import json
import shutil
from typing import Any

from asyncflow.cli.store.items import Items, records_of
from asyncflow.cli.store.reading import One, opened
from asyncflow.cli.store.shown import for_people, money, one_line, print_json, table
from asyncflow.cli.usage import UsageError
from asyncflow.durability.store import Record, RunRow

OUTCOMES = ("ok", "failed", "again", "dropped")

#: Characters of an id in a list: no two of a million items share them by chance.
_SHORT = 12


def list_items(store: str | None, text: str, outcome: str | None, limit: int, as_json: bool) -> int:
    """Print items; returns the exit code."""
    if outcome is not None and outcome not in OUTCOMES:
        raise UsageError(f"--outcome {outcome}: it is one of {', '.join(OUTCOMES)}")
    rows: list[dict[str, Any]] = []
    more = 0
    with opened(store) as stores:
        at, run, how = stores.run(text)
        with at.reader.snapshot():
            items = Items(at.reader, run)
            for record in records_of(at.reader, run):
                if outcome is not None and items.outcome(record) != outcome:
                    continue
                if limit and len(rows) == limit:
                    more += 1
                else:
                    rows.append(items.row(record))
    if as_json:
        print_json(rows)
        return 0
    kind = f" {outcome}" if outcome else ""
    if not rows:
        print(f"{run.id} ({how}) has no{kind} items")
        return 0
    print("\n".join(_lines(rows)))
    if more:
        print(f"… and {more:,} more; --limit 0 lists all of them")
    return 0


def show_item(store: str | None, text: str, item: str, as_json: bool) -> int:
    """Print one item; returns the exit code."""
    with opened(store) as stores:
        at, run, _ = stores.run(text)
        record = the_item(at, run, item)
        row = Items(at.reader, run).row(record, traceback=True)
    if as_json:
        print_json(row)
        return 0
    error = row.pop("error")
    value = row.pop("value")
    for name, found in row.items():
        if found is not None:
            print(f"{name:9} {json.dumps(found) if isinstance(found, dict) else found}")
    if error is not None:
        print(f"error     {error['kind']}: {error['message']}")
        print(error["traceback"].rstrip())
    elif row["outcome"] != "again":
        print(f"value     {json.dumps(value, ensure_ascii=False, indent=2)}")
    return 0


def the_item(at: One, run: RunRow, text: str) -> Record:
    """The item that is meant: by its key, or by its id or a unique beginning of that.

    Raises:
        UsageError: If none is, or several are.
    """
    by_id: list[Record] = []
    by_key: list[Record] = []
    for record in records_of(at.reader, run):
        if record.label == text:
            by_key.append(record)
        if record.key.hex().startswith(text.lower()) and len(by_id) < 6:
            by_id.append(record)
    found = by_key or by_id
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(f"{run.id} has no item whose id begins with {text!r}, and none of that key")
    listed = ", ".join(record.key.hex()[:_SHORT] for record in found[:5])
    raise UsageError(f"{text!r} may be several items of {run.id}: {listed}, …; give more of the id")


def _lines(rows: list[dict[str, Any]]) -> list[str]:
    nodes = len({row["node"] for row in rows}) > 1
    keys = any(row["key"] is not None for row in rows)
    cells = [_cells(row, nodes, keys) for row in rows]
    names = ["ITEM", *(["NODE"] if nodes else []), *(["KEY"] if keys else [])]
    lines = table([*names, "OUTCOME", "ATTEMPTS", "SECONDS", "TOKENS", "COST", "ENDED (UTC)"], cells)
    width = shutil.get_terminal_size((160, 24)).columns
    shown = [""] + [_result(row) for row in rows]
    return [
        f"{line}  {one_line(text, max(20, width - len(line) - 2))}".rstrip()
        for line, text in zip(lines, shown, strict=True)
    ]


def _cells(row: dict[str, Any], nodes: bool, keys: bool) -> list[str]:
    usage = row["usage"]
    return [
        row["id"][:_SHORT],
        *([row["node"]] if nodes else []),
        *([one_line(row["key"] or "-", 40)] if keys else []),
        row["outcome"],
        str(row["attempts"]),
        "-" if row["seconds"] is None else f"{row['seconds']:.2f}",
        "-" if usage is None else f"{usage['input_tokens'] + usage['output_tokens']:,}",
        money(row["cost"]),
        for_people(row["ended"]),
    ]


def _result(row: dict[str, Any]) -> str:
    if row["error"] is not None:
        return f"{row['error']['kind']}: {row['error']['message']}"
    return "" if row["value"] is None else json.dumps(row["value"], ensure_ascii=False)
