"""`asyncflow runs` and `asyncflow items`: looking at stored runs, exporting, deleting, running again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from asyncflow import AsyncNode, AsyncParallelBatchFlow, Failed, amap, run_sync
from asyncflow.llm import Completion, Usage
from tests.cli.conftest import Here, environment

HOLDER = """
import asyncio, sys
from asyncflow import amap

async def work(n):
    if n == 3:
        print("three", flush=True)
        await asyncio.Event().wait()
    return n

asyncio.run(amap(work, range(9), store="runs.db", run_id="held", concurrency=1))
"""


async def ask(n: int) -> Completion:
    if n % 5 == 3:
        raise ValueError(f"no {n}")
    return Completion(f"text {n}", Usage(10, n), cost=0.5 * n)


def recorded(store: Path, run_id: str = "one", items: Any = range(10), **more: Any) -> list[Any]:
    """A run of `ask` over ten items, of which 3 and 8 fail."""
    return asyncio.run(amap(ask, items, store=store, run_id=run_id, on_error="continue", **more))


@pytest.fixture
def holding(tmp_path: Path) -> Any:
    """A process that runs "held" in the folder's store and has done three items."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline()
        yield process
        process.kill()


def test_runs_are_listed_with_their_counts(here: Here, tmp_path: Path) -> None:
    """Oldest first, with status, done, failed and sessions; --status chooses."""
    recorded(tmp_path / "runs.db")
    recorded(tmp_path / "runs.db", "two", range(3))
    recorded(tmp_path / "runs.db", "two", range(4))
    text = here("runs", "list")
    assert text.returncode == 0 and [line.split()[0] for line in text.stdout.splitlines()] == [
        "RUN",
        "one",
        "two",
    ]
    one, two = json.loads(here("runs", "list", "--json").stdout)
    assert (one["status"], one["name"], one["done"], one["failed"], one["sessions"]) == (
        "finished",
        "ask",
        8,
        2,
        1,
    )
    assert (two["id"], two["done"], two["failed"], two["sessions"]) == ("two", 3, 1, 2)
    assert json.loads(here("runs", "list", "--json", "--status", "running").stdout) == []
    assert here("runs", "list", "--status", "odd").returncode == 2


def test_all_stores_of_the_folder_are_looked_into(here: Here, tmp_path: Path) -> None:
    """Unless one is named: runs.db and those of outputs, as one list, in which a run is found by its name."""
    recorded(tmp_path / "runs.db", "old", range(3))
    recorded(tmp_path / "a.csv.runs.db", "first", range(3))
    recorded(tmp_path / "b.csv.runs.db", "second", range(4))
    recorded(tmp_path / "other.db", "elsewhere", range(3))
    listed = here("runs", "list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["RUN", "old", "first", "second"]
    assert "STORE" in listed[0] and listed[2].endswith("a.csv.runs.db")
    assert json.loads(here("runs", "show", "--json").stdout)["store"] == "b.csv.runs.db"
    assert json.loads(here("runs", "show", "fir", "--json").stdout)["id"] == "first"
    assert len(here("runs", "export", "first").stdout.splitlines()) == 3
    assert len(json.loads(here("items", "list", "old", "--json").stdout)) == 3
    assert here("items", "retry", "second", "--failed").returncode == 0
    assert json.loads(here("runs", "show", "second", "--json").stdout)["again"] == 1
    one = json.loads(here("runs", "list", "--json", "--store", "a.csv.runs.db").stdout)
    assert [each["id"] for each in one] == ["first"]
    ran = here("runs", "rm", "old", "second", "--yes")
    assert ran.returncode == 0 and "runs.db: " in ran.stderr and "b.csv.runs.db: " in ran.stderr
    assert [each["id"] for each in json.loads(here("runs", "list", "--json").stdout)] == ["first"]
    removed = json.loads(here("runs", "rm", "--older-than", "0", "--yes", "--json").stdout)
    assert removed["removed"] == ["first"] and removed["bytes_after"] <= removed["bytes_before"]


def test_a_run_that_is_in_two_stores_is_not_guessed(here: Here, tmp_path: Path) -> None:
    """A copied store has the same runs: which is meant, --store says."""
    recorded(tmp_path / "runs.db", "one", range(3))
    (tmp_path / "copy.runs.db").write_bytes((tmp_path / "runs.db").read_bytes())
    ran = here("runs", "show", "one")
    assert ran.returncode == 2 and "runs.db and copy.runs.db" in ran.stderr and "--store" in ran.stderr
    assert here("runs", "show", "one", "--store", "copy.runs.db").returncode == 0


@pytest.mark.parametrize("name", ["one", "on", "@last"])
def test_a_run_is_shown_with_sums_and_errors(here: Here, tmp_path: Path, name: str) -> None:
    """By id, by a unique beginning, or as @last: tokens, cost, nodes, sessions, errors with one example."""
    recorded(tmp_path / "runs.db")
    found = json.loads(here("runs", "show", name, "--json").stdout)
    assert found["usage"] == {"input_tokens": 80, "output_tokens": 34, "cached_input_tokens": 0}
    assert found["cost"] == 17.0 and found["nodes"] == [{"node": "ask", "visits": 1, "done": 8, "failed": 2}]
    assert [(one["kind"], one["count"], one["message"]) for one in found["errors"]] == [
        ("ValueError", 2, "no 3")
    ]
    text = here("runs", "show", name).stdout
    assert "2 × ValueError" in text and "no 3" in text and "cost 17" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("runs", "show", "nothing"), "no run begins with 'nothing'"),
        (("runs", "show", "t"), "2 runs begin with 't': two, three"),
        (("runs", "list", "--store", "none.db"), "none.db; where it lies is said by --store"),
        (("runs", "export", "two", "-o", "x.doc"), "must end in"),
        (("runs", "export", "two", "-o", "there.csv"), "it exists"),
        (("runs", "rm"), "which run?"),
        (("items", "retry", "two"), "which items?"),
        (("items", "show", "two", "zz"), "no item whose id begins with 'zz'"),
        (("items", "list", "two", "--outcome", "odd"), "it is one of"),
    ],
)
def test_what_cannot_be_meant_is_said(here: Here, tmp_path: Path, arguments: Any, said: str) -> None:
    """With exit code 2, the text saying what, and nothing on standard output."""
    for name in ("two", "three"):
        recorded(tmp_path / "runs.db", name, [1])
    (tmp_path / "there.csv").write_text("old")
    ran = here(*arguments)
    assert (ran.returncode, ran.stdout) == (2, "") and said in ran.stderr
    assert (tmp_path / "there.csv").read_text() == "old"


def test_a_file_that_is_no_store_is_refused(here: Here, tmp_path: Path) -> None:
    """It is left as it is; exit code 3."""
    (tmp_path / "runs.db").write_text("not a database")
    for arguments in (("runs", "list"), ("runs", "rm", "@last", "--yes")):
        ran = here(*arguments)
        assert ran.returncode == 3 and "is not a SQLite file" in ran.stderr
    assert (tmp_path / "runs.db").read_text() == "not a database"


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_export_has_every_item(here: Here, tmp_path: Path, suffix: str) -> None:
    """Each item once: id, key, value or error, attempts, times, usage and cost."""
    recorded(tmp_path / "runs.db", key=lambda n: f"row {n}")
    ran = here("runs", "export", "one", "-o", f"out.{suffix}", "--json")
    assert ran.returncode == 0 and json.loads(ran.stdout)["items"] == 10
    out = tmp_path / f"out.{suffix}"
    if suffix == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        ok = next(row for row in rows if row["key"] == "row 4")
        assert (ok["value"]["text"], ok["usage"]["output_tokens"], ok["cost"]) == ("text 4", 4, 2.0)
        bad = next(row for row in rows if row["key"] == "row 3")
        assert bad["error"] == {"kind": "ValueError", "message": "no 3"} and bad["value"] is None
        assert ok["began"] <= ok["ended"] and ok["began"].endswith("Z")
    elif suffix == "csv":
        lines = out.read_text().splitlines()
        assert len(lines) == 11 and lines[0].startswith("run,node,path,visit,id,position,key,outcome,value")
        assert sum(",failed,,ValueError,no " in line for line in lines) == 2
    else:
        table = pyarrow.parquet.read_table(out).to_pylist()
        assert sorted(row["key"] for row in table) == sorted(f"row {n}" for n in range(10))
        assert sum(row["cost"] or 0 for row in table) == 17.0
        assert [json.loads(row["value"])["text"] for row in table if row["key"] == "row 4"] == ["text 4"]
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_export_to_standard_output(child: Callable[..., Any], tmp_path: Path) -> None:
    """Without -o it is JSON lines; a reader that has seen enough is no error."""
    recorded(tmp_path / "runs.db", items=[5] * 3000)
    process = child("runs", "export", "one", "--store", tmp_path / "runs.db")
    assert json.loads(process.stdout.readline())["outcome"] == "ok"
    process.stdout.close()
    assert process.wait(timeout=30) == 0 and process.stderr.read() == ""


KILLED = """
import os, sys
from asyncflow.cli import main
from asyncflow.cli.tables import sinks
kind = getattr(sinks, sys.argv.pop(1))
write, count = kind.write, 0
def killing(self, row):
    global count
    count += 1
    if count == 1500:
        os.kill(os.getpid(), 9)
    write(self, row)
kind.write = killing
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize(("suffix", "sink"), [("jsonl", "JSONLSink"), ("parquet", "ParquetSink")])
def test_a_kill_during_export_leaves_no_half_file(here: Here, tmp_path: Path, suffix: str, sink: str) -> None:
    """What was there before stays, and the next export writes the whole and leaves nothing beside it."""
    recorded(tmp_path / "runs.db", items=range(0, 10_000, 5))
    out = tmp_path / f"out.{suffix}"
    out.write_bytes(b"before")
    command = ("runs", "export", "one", "-o", str(out), "--overwrite")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, sink, *command], cwd=tmp_path, env=environment(), timeout=50
    )
    assert killed.returncode == -signal.SIGKILL and out.read_bytes() == b"before"
    assert here(*command).returncode == 0
    count = len(pyarrow.parquet.read_table(out)) if suffix == "parquet" else len(out.read_text().splitlines())
    assert count == 2000 + (suffix == "csv")
    assert [path.name for path in tmp_path.iterdir() if ".new" in path.name] == []


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_running_run_is_looked_at_and_left_alone(here: Here, tmp_path: Path, holding: Any) -> None:
    """Another process's run can be read; rm and retry refuse it with 3; killed, it is interrupted at once."""
    (one,) = json.loads(here("runs", "list", "--json").stdout)
    assert (one["id"], one["status"], one["done"]) == ("held", "running", 3)
    assert len(json.loads(here("items", "list", "--json").stdout)) == 3
    for arguments in (("runs", "rm", "held", "--yes"), ("items", "retry", "held", "--failed")):
        ran = here(*arguments)
        assert ran.returncode == 3 and f"process {holding.pid}" in ran.stderr
    holding.kill()
    holding.wait()
    (one,) = json.loads(here("runs", "list", "--json").stdout)
    assert (one["status"], one["done"], one["ended"]) == ("interrupted", 3, None)
    assert here("runs", "rm", "held", "--yes").returncode == 0
    assert here("runs", "list").stdout == "runs.db holds no runs\n"


def test_rm_asks_and_makes_the_file_smaller(here: Here, tmp_path: Path, monkeypatch: Any) -> None:
    """Where nobody can answer it needs --yes; then the run is gone and its space given back."""
    recorded(tmp_path / "runs.db", items=range(0, 20_000, 5))
    recorded(tmp_path / "runs.db", "two", range(3))
    ran = here("runs", "rm", "one")
    assert ran.returncode == 3 and "--yes" in ran.stderr and "4,000 results" in ran.stderr
    before = os.stat(tmp_path / "runs.db").st_size
    ran = here("runs", "rm", "one", "--yes", "--json")
    assert ran.returncode == 0 and json.loads(ran.stdout)["removed"] == ["one"]
    assert os.stat(tmp_path / "runs.db").st_size < before / 4
    assert [one["id"] for one in json.loads(here("runs", "list", "--json").stdout)] == ["two"]
    assert len(recorded(tmp_path / "runs.db", "two", range(3))) == 3  # and the store is as good as before


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 1), ("", 1)])
def test_rm_takes_a_yes(here: Here, tmp_path: Path, monkeypatch: Any, answer: str, left: int) -> None:
    """Asked, only a yes deletes."""
    recorded(tmp_path / "runs.db", items=range(3))

    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return answer

    monkeypatch.setattr(sys, "stdin", Terminal())
    ran = here("runs", "rm", "@last")
    assert ran.returncode == (3 if left else 0) and "[y/N]" in ran.stderr
    assert len(json.loads(here("runs", "list", "--json").stdout)) == left


def test_rm_of_what_is_old(here: Here, tmp_path: Path) -> None:
    """--older-than takes the runs whose last session began before; 0 days is every one that has ended."""
    recorded(tmp_path / "runs.db", items=range(3))
    recorded(tmp_path / "runs.db", "two", items=range(3))
    assert json.loads(here("runs", "rm", "--older-than", 1, "--yes", "--json").stdout)["removed"] == []
    assert json.loads(here("runs", "rm", "--older-than", 0, "--yes", "--json").stdout)["removed"] == [
        "one",
        "two",
    ]


def test_items_are_listed_and_shown(here: Here, tmp_path: Path) -> None:
    """--failed and --outcome choose, --limit cuts and says so; an item is found by its key or its id."""
    recorded(tmp_path / "runs.db", key=lambda n: f"row {n}")
    failed = json.loads(here("items", "list", "@last", "--failed", "--json").stdout)
    assert [row["key"] for row in failed] == ["row 3", "row 8"]
    text = here("items", "list", "one", "--limit", 4).stdout
    assert "… and 6 more" in text and "row 0" in text and "text 0" in text
    by_key = here("items", "show", "one", "row 3").stdout
    assert "ValueError: no 3" in by_key and "in ask" in by_key
    found = json.loads(here("items", "show", "one", failed[0]["id"][:9], "--json").stdout)
    assert found["key"] == "row 3" and "in ask" in found["error"]["traceback"]


def test_retry_has_items_run_again(here: Here, tmp_path: Path) -> None:
    """Marked items run when the run goes on, also under retry_failed=False; results only if told."""
    store = tmp_path / "runs.db"
    recorded(store, key=lambda n: f"row {n}")
    assert here("items", "retry", "one", "row 4").returncode == 2
    marked = json.loads(here("items", "retry", "one", "row 3", "row 4", "--done", "--json").stdout)
    assert len(marked["marked"]) == 2
    again = json.loads(here("items", "list", "one", "--outcome", "again", "--json").stdout)
    assert [row["key"] for row in again] == ["row 3", "row 4"]
    (run,) = json.loads(here("runs", "list", "--json").stdout)
    assert (run["status"], run["done"], run["failed"], run["again"]) == ("finished", 7, 1, 2)
    assert "2 to run again" in here("runs", "show").stdout
    called: list[int] = []

    async def ask_again(n: int) -> Completion:
        called.append(n)
        return Completion(f"new {n}")

    ask_again.__name__ = "ask"
    results = asyncio.run(
        amap(
            ask_again,
            range(10),
            store=store,
            run_id="one",
            on_error="continue",
            changed="keep",
            retry_failed=False,
            key=lambda n: f"row {n}",
        )  # fmt: skip
    )
    assert sorted(called) == [3, 4]
    assert results[3].text == "new 3" and isinstance(results[8], Failed)
    assert here("items", "retry", "one", "--failed").stderr.startswith("1 item runs again")
    recorded(store, "clean", [1])
    assert "nothing to do" in here("items", "retry", "clean", "--failed").stderr


def test_a_suspect_is_pardoned(here: Here, tmp_path: Path) -> None:
    """An item that was in flight at several deaths, with no record of its own, runs with the others again."""
    from asyncflow.durability.marks import Mark
    from asyncflow.durability.sqlstore import SQLStore

    store = SQLStore(tmp_path / "runs.db")
    recorded(tmp_path / "runs.db", items=[1])
    key = bytes(range(16))
    writer = store.open_writer()
    for _ in range(4):
        run, session = writer.start("one", "ask", '{"program": null, "since": {}}', 1.0)
        writer.bury([Mark(key, 77, session, 1)])
    writer.close()
    assert json.loads(here("runs", "show", "--json").stdout)["suspects"] == {key.hex(): "quarantine"}
    assert "quarantined" in here("runs", "show").stdout
    assert json.loads(here("items", "retry", "one", key.hex()[:6], "--json").stdout)["marked"] == [key.hex()]
    assert json.loads(here("runs", "show", "--json").stdout)["suspects"] == {}
    assert here("items", "list", "one", "--outcome", "again").returncode == 0


def test_a_batch_flow_is_one_node(here: Here, tmp_path: Path) -> None:
    """The many runs of a batch flow are one line of `show`; in an export `path` tells them apart."""

    class Inner(AsyncNode):
        async def exec_async(self, prep_res: Any) -> int:
            return 1

    class Many(AsyncParallelBatchFlow):
        async def prep_async(self, shared: Any) -> list[dict[str, int]]:
            return [{"n": n} for n in range(5)]

    run_sync(Many(start=Inner()), {}, store=tmp_path / "runs.db", run_id="many")
    found = json.loads(here("runs", "show", "many", "--json").stdout)
    assert found["nodes"] == [{"node": "Many / Inner", "visits": 5, "done": 5, "failed": 0}]
    rows = json.loads(here("items", "list", "many", "--json").stdout)
    assert {row["node"] for row in rows} == {"Many / Inner"} and len({row["path"] for row in rows}) == 5
