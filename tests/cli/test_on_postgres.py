"""The commands over PostgreSQL: the same as over a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asyncflow.testing import SimulatedProvider

Rows = Callable[..., Path]
Read = Callable[[Path], list[Any]]


def test_map_runs_and_items(
    ask: Any,
    here: Any,
    rows: Rows,
    read: Read,
    tmp_path: Path,
    provider: SimulatedProvider,
    postgres_url: str,
) -> None:
    """`map` goes on, `runs` and `items` show, export, mark and delete; no file is made; no password shown."""
    rows({"t": "a"}, {"t": "b"})
    store = ("--store", postgres_url)
    command = ("in.jsonl", "-o", "out.jsonl", "--prompt", "{t}", *store)
    ran = ask(*command)
    assert ran.returncode == 0, ran.stderr
    rows({"t": "c"}, {"t": "b"}, {"t": "a"})
    ran = ask(*command, "--json")
    assert "2 of 3 done and kept, 1 not started" in ran.stderr and len(provider.log) == 3
    assert [row["answer"] for row in read(tmp_path / "out.jsonl")] == ["C", "B", "A"]
    (run,) = json.loads(here("runs", "list", "--json", *store).stdout)
    assert (run["status"], run["done"], run["sessions"]) == ("finished", 3, 2)
    assert json.loads(here("runs", "show", "@last", "--json", *store).stdout)["usage"]["output_tokens"] == 3
    assert here("runs", "export", "@last", "-o", "items.csv", *store).returncode == 0
    assert len((tmp_path / "items.csv").read_text().splitlines()) == 4
    (first, *_) = json.loads(here("items", "list", "--json", *store).stdout)
    assert here("items", "retry", "@last", first["id"][:8], "--done", *store).returncode == 0
    assert ask(*command).returncode == 0 and len(provider.log) == 4
    ran = here("runs", "rm", "@last", "--yes", *store)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(here("runs", "list", "--json", *store).stdout) == []
    assert not list(tmp_path.glob("*.db"))
