"""`asyncflow runs export`: each item of a run as a row of a file, or on standard output."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asyncflow.cli.store.items import COLUMNS, Items, flat, records_of
from asyncflow.cli.store.reading import One, opened
from asyncflow.cli.store.shown import print_json
from asyncflow.cli.tables.formats import arrow, kind_of
from asyncflow.cli.tables.sinks import sink_for
from asyncflow.cli.tables.values import json_line
from asyncflow.cli.tables.whole import written_whole
from asyncflow.cli.usage import UsageError
from asyncflow.durability.store import RunRow


def export_run(
    store: str | None, text: str, output: Path | None, only_failed: bool, overwrite: bool, as_json: bool
) -> int:
    """Write the items; returns the exit code. A file is there whole or not at all."""
    if output is not None:
        check_target(output, overwrite)
    with opened(store) as stores:
        at, run, how = stores.run(text)
        with at.reader.snapshot():
            rows = _rows(at, run, only_failed)
            if output is None:
                sys.stdout.flush()
                for row in rows:
                    sys.stdout.buffer.write(json_line(row))
                return 0
            written = write_rows(rows, output)
    if as_json:
        print_json({"run": run.id, "status": how, "output": str(output), "items": written})
    else:
        print(f"{written:,} items of {run.id} ({how}) written to {output}", file=sys.stderr)
    return 0


def check_target(path: Path, overwrite: bool) -> None:
    """Refuse a file that cannot be written, or would be lost.

    Raises:
        UsageError: If so.
    """
    if kind_of(path) == "parquet":
        arrow(path)
    if path.is_dir():
        raise UsageError(f"-o {path}: it is a folder")
    if not path.parent.is_dir():
        raise UsageError(f"-o {path}: there is no folder {path.parent}")
    if path.exists() and not overwrite:
        raise UsageError(f"-o {path}: it exists; name another file, or give --overwrite")


def write_rows(rows: Iterator[dict[str, Any]], path: Path) -> int:
    """Write rows of items; returns how many. JSON lines are nested, tables are flat."""
    count, nested = 0, kind_of(path) == "jsonl"
    with written_whole(path) as file:
        sink = sink_for(file, path, COLUMNS)
        for row in rows:
            sink.write(row if nested else flat(row))
            count += 1
        sink.close()
    return count


def _rows(at: One, run: RunRow, only_failed: bool) -> Iterator[dict[str, Any]]:
    items = Items(at.reader, run)
    for record in records_of(at.reader, run):
        if not only_failed or items.outcome(record) == "failed":
            yield items.row(record)
