"""`asyncflow runs show`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from asyncflow.cli.runs.listing import summary
from asyncflow.cli.store.items import Items, records_of
from asyncflow.cli.store.reading import Found, One, opened
from asyncflow.cli.store.shown import for_people, moment, money, one_line, print_json, table
from asyncflow.durability.crashes import verdicts
from asyncflow.durability.journal import nodes_of
from asyncflow.durability.store import FAILED, RunRow


@dataclass(slots=True)
class Sums:
    """What the records of a run add up to, and its errors by kind with the first of each."""

    seconds: float = 0.0
    errors: dict[str, dict[str, Any]] = field(default_factory=dict)


def show_run(store: str | None, text: str, as_json: bool) -> int:
    """Print one run; returns the exit code."""
    with opened(store) as stores:
        one = stores.run(text)
        with one.at.reader.snapshot():
            found = {**summary(one), **_details(one)}
    if as_json:
        print_json(found)
    else:
        print("\n".join(lines_of(found)))
    return 0


def _details(found: Found) -> dict[str, Any]:
    at, run, _ = found
    sums, spent = _sums(at, run), at.reader.spent(run.number)
    usage = {name: value for name, value in asdict(spent).items() if name != "cost"}
    deaths = verdicts(at.reader.deaths(run.number))
    program = json.loads(run.fingerprint).get("program")
    return {
        "sessions": [
            {
                "number": number,
                "started": moment(each.started),
                "ended": moment(each.ended),
                "how": each.how,
            }
            for number, each in enumerate(run.sessions, 1)
        ],
        "nodes": [
            {"node": node, "visits": visits, "done": done, "failed": failed}
            for node, (visits, done, failed) in _nodes(at, run).items()
        ],
        "usage": usage if any(usage.values()) else None,
        "cost": spent.cost,
        "seconds_at_work": round(sums.seconds, 3),
        "suspects": {key.hex(): what for key, what in deaths.items()},
        "errors": sorted(sums.errors.values(), key=lambda one: -one["count"]),
        "program": json.loads(program) if program else None,
    }


def _nodes(at: One, run: RunRow) -> dict[str, tuple[int, int, int]]:
    """Visits, done and failed items by node; all visits and all runs of a batch flow together."""
    found: dict[str, tuple[int, int, int]] = {}
    for each in at.reader.counts(run.number):
        node = " / ".join(nodes_of(each.path))
        visits, done, failed = found.get(node, (0, 0, 0))
        found[node] = (visits + 1, done + each.done, failed + each.failed)
    return found


def _sums(at: One, run: RunRow) -> Sums:
    sums, items = Sums(), Items(at.reader, run)
    for record in records_of(at.reader, run):
        sums.seconds += record.at - record.began
        if record.kind == FAILED:
            row = items.row(record)
            error = row["error"]
            one = sums.errors.setdefault(
                error["kind"],
                {"kind": error["kind"], "count": 0, "item": row["id"], "key": row["key"], **error},
            )
            one["count"] += 1
    return sums


def lines_of(found: dict[str, Any]) -> list[str]:
    """A run for people, a line each."""
    lines = [
        f"{found['id']}: {found['status']}",
        f"  name      {found['name']}",
        f"  created   {for_people(found['created'])} UTC",
        f"  items     {found['done']:,} done, {found['failed']:,} failed"
        + (f", {found['again']:,} to run again" if found["again"] else ""),
    ]
    if found["usage"]:
        tokens = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in found["usage"].items())
        lines.append(f"  usage     {tokens}; cost {money(found['cost'])}")
    lines += [
        "",
        *table(["SESSION", "STARTED (UTC)", "ENDED", "HOW"], [_session(s) for s in found["sessions"]]),
    ]
    nodes = [
        [
            one["node"],
            f"{one['visits']:,}",
            f"{one['done']:,}",
            f"{one['failed']:,}",
        ]
        for one in found["nodes"]
    ]
    lines += ["", *table(["NODE", "VISITS", "DONE", "FAILED"], nodes)] if nodes else []
    if found["errors"]:
        lines += ["", "Errors:"]
    for one in found["errors"]:
        name = one["key"] or one["item"][:12]
        message = one_line(one["message"], 200)
        lines.append(f"  {one['count']:,} × {one['kind']}, such as {one_line(name, 40)}: {message}")
    for key, what in found["suspects"].items():
        fate = "is run alone" if what == "alone" else "is quarantined"
        lines.append(f"  item {key[:12]} was in flight when the process died, several times: it {fate}")
    return lines


def _session(one: dict[str, Any]) -> list[str]:
    return [str(one["number"]), for_people(one["started"]), for_people(one["ended"]), one["how"] or "open"]
