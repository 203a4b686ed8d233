"""`asyncflow map` given again: what is done is kept, whatever became of the process and of the input."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asyncflow.testing import Asked, SimulatedProvider

Rows = Callable[..., Path]
Read = Callable[[Path], list[Any]]
OUT = ("in.jsonl", "-o", "out.jsonl")


def asked(provider: SimulatedProvider) -> list[str]:
    """The prompts so far; the log forgets them."""
    found = [one.prompt for one in provider.log]
    provider.log.clear()
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize(
    "rounds", [(60, 170), pytest.param(range(20, 290, 20), marks=pytest.mark.long)], ids=["two", "many"]
)
def test_killed_again_and_again(
    child: Callable[..., Any], here: Any, rows: Rows, read: Read, tmp_path: Path, rounds: Any
) -> None:
    """No row that was recorded is asked again after kill -9; in the end each is there once, in order."""
    path, out = rows(*({"n": n} for n in range(300))), tmp_path / "out.jsonl"
    enough = threading.Event()
    counts: Counter[str] = Counter()
    until = 0

    def reply(one: Asked) -> str:
        counts[one.prompt] += 1
        if counts.total() == until:
            enough.set()
        return f"<{one.prompt}>"

    recorded: dict[str, int] = {}  # by prompt: how often it had been asked when its record was seen
    with SimulatedProvider(reply=reply, latency=0.002) as provider:
        command = (
            "map", path, "-o", out, "--prompt", "{n}", "--model", "m", "--base-url", provider.base_url,
            "--concurrency", 8,
        )  # fmt: skip
        for until in rounds:
            running = child(*command)
            assert enough.wait(30)
            running.kill()
            running.communicate(timeout=30)
            enough.clear()
            for item in json.loads(here("items", "list", "--limit", 0, "--json").stdout):
                recorded.setdefault(json.loads(item["key"])["n"], counts[json.loads(item["key"])["n"]])
            assert not out.exists()
        ran = here(*command)
    assert ran.returncode == 0, ran.stderr
    assert (
        ran.stderr.startswith("Going on with run") and f"{len(recorded)} of 300 done and kept" in ran.stderr
    )
    assert len(recorded) > 100 and all(counts[prompt] == times for prompt, times in recorded.items())
    assert counts.total() <= 300 + len(rounds) * (8 + 64)  # in flight, and answered but not yet committed
    assert [(row["n"], row["answer"]) for row in read(out)] == [(n, f"<{n}>") for n in range(300)]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no POSIX signals")
@pytest.mark.parametrize(
    ("suffix", "number", "code"), [("jsonl", signal.SIGINT, 130), ("parquet", signal.SIGTERM, 143)]
)
def test_a_signal_lets_calls_in_flight_end(
    child: Callable[..., Any], here: Any, rows: Rows, tmp_path: Path, suffix: str, number: int, code: int
) -> None:
    """They are recorded and in the output with all before them; the command that goes on is said; it does."""
    import pyarrow.parquet

    path, out = rows(*({"n": n} for n in range(40))), tmp_path / f"out.{suffix}"
    full, released = threading.Event(), threading.Event()

    async def reply(one: Asked) -> str:
        if int(one.prompt) >= 6 and not released.is_set():
            if provider.statistics().asked >= 10:
                full.set()
            while not released.is_set():
                await asyncio.sleep(0.005)
        return "ok"

    def answers() -> list[tuple[int, str]]:
        if suffix == "parquet":
            found = pyarrow.parquet.read_table(out).to_pylist()
        else:
            found = [json.loads(line) for line in out.read_text().splitlines()]
        return [(row["n"], row["answer"]) for row in found]

    with SimulatedProvider(reply=reply, latency=0) as provider:
        command = (
            "map", path, "-o", out, "--prompt", "{n}", "--model", "m", "--base-url", provider.base_url,
            "--concurrency", 4, "--json",
        )  # fmt: skip
        running = child(*command)
        assert full.wait(30)
        running.send_signal(number)
        heard = ""
        while "no more items are started" not in heard:  # progress lines may come first
            heard += running.stderr.readline()
        released.set()
        stdout, stderr = running.communicate(timeout=30)
        assert running.returncode == code and "Traceback" not in stderr
        figures = json.loads(stdout)
        done = figures["ok"]
        assert done == provider.statistics().asked >= 10  # nothing that was paid is lost
        assert answers() == [(n, "ok") for n in range(done)]
        assert (figures["not_run"], figures["complete"]) == (40 - done, False)
        assert figures["stopped"] == signal.Signals(number).name and figures["output"] == str(out)
        assert f"{done} rows of 40 are in {out}" in stderr and f"  asyncflow map {path} -o {out}" in stderr
        assert here(*command).returncode == 0
        assert provider.statistics().asked == 40
    assert answers() == [(n, "ok") for n in range(40)]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no POSIX signals")
@pytest.mark.parametrize("how", ["the grace is over", "a second signal"])
def test_calls_that_do_not_end_are_cut_off(
    child: Callable[..., Any], rows: Rows, read: Read, tmp_path: Path, how: str
) -> None:
    """After the grace, or at the second Ctrl-C; what was answered before is in the output; code 130."""
    path, out = rows(*({"n": n} for n in range(40))), tmp_path / "out.jsonl"
    full = threading.Event()

    async def reply(one: Asked) -> str:
        if int(one.prompt) >= 3:
            if provider.statistics().asked >= 7:
                full.set()
            await asyncio.Event().wait()
        return "ok"

    with SimulatedProvider(reply=reply, latency=0) as provider:
        running = child(
            "map", path, "-o", out, "--prompt", "{n}", "--model", "m", "--base-url", provider.base_url,
            "--concurrency", 4, "--grace", 0.05 if how == "the grace is over" else 600,
        )  # fmt: skip
        assert full.wait(30)
        running.send_signal(signal.SIGINT)
        if how == "a second signal":
            heard = ""
            while "no more items are started" not in heard:
                heard += running.stderr.readline()
            running.send_signal(signal.SIGINT)
        _, stderr = running.communicate(timeout=30)
    assert running.returncode == 130 and "Traceback" not in stderr
    assert [(row["n"], row["answer"]) for row in read(out)] == [(n, "ok") for n in range(3)]


def test_rows_may_be_inserted_moved_and_taken_away(
    ask: Any, rows: Rows, read: Read, tmp_path: Path, provider: SimulatedProvider
) -> None:
    """Only new rows are asked; equal ones are counted; columns that are not asked about do not matter."""
    rows({"t": "a"}, {"t": "b"}, {"t": "b"}, {"t": "c"})
    assert ask(*OUT, "--prompt", "{t}").returncode == 0
    assert sorted(asked(provider)) == ["a", "b", "b", "c"]
    rows({"t": "c", "id": 1}, {"t": "new", "id": 2}, {"t": "b"}, {"t": "b"}, {"t": "b"})
    ran = ask(*OUT, "--prompt", "{t}", "--json")
    assert "3 of 5 done and kept, 2 not started (1 of before are no longer in the input)" in ran.stderr
    assert sorted(asked(provider)) == ["b", "new"]
    assert [row["answer"] for row in read(tmp_path / "out.jsonl")] == ["C", "NEW", "B", "B", "B"]
    figures = json.loads(ran.stdout)
    assert (figures["kept"], figures["ok"], figures["requests"], figures["complete"]) == (3, 5, 2, True)


def test_the_format_of_the_input_does_not_matter(
    ask: Any, rows: Rows, tmp_path: Path, provider: SimulatedProvider
) -> None:
    """The same rows as CSV, whose values are all text, are the same rows."""
    rows({"n": 1, "t": "x"}, {"n": 2, "t": None})
    assert ask(*OUT, "--prompt", "{n}{t}").returncode == 0
    (tmp_path / "in.csv").write_text("t,n\n,2\nx,1\n")
    assert ask("in.csv", "-o", "out.jsonl", "--prompt", "{n}{t}").returncode == 0
    assert len(asked(provider)) == 2


CHANGES = [
    (("--prompt", "new {t}"), "prompt was {t}, is new {t}"),
    (("--prompt", "{t}", "--model", "other"), "model was m, is other"),
    (("--prompt", "{t}", "--system", "Be kind"), "system was not set, is Be kind"),
    (("--prompt", "{t}", "--schema", "s.json"), "schema was not set, is {"),
    (("--prompt", "{t}", "--max-tokens", 9), "max_tokens was not set, is 9"),
    (("--prompt", "{t}", "--temperature", 0.5), "temperature was not set, is 0.5"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "said"), CHANGES, ids=[row[1].split()[0] for row in CHANGES])
def test_what_asks_something_else_is_refused(
    ask: Any, rows: Rows, tmp_path: Path, provider: SimulatedProvider, arguments: Any, said: str
) -> None:
    """With exit code 3, what has changed, and what may be done; nothing is asked, the output stays."""
    rows({"t": "a"})
    (tmp_path / "s.json").write_text('{"type": "object"}')
    assert ask(*OUT, "--prompt", "{t}").returncode == 0
    before = (tmp_path / "out.jsonl").read_bytes()
    ran = ask(*OUT, *arguments)
    assert ran.returncode == 3 and f"  {said}" in ran.stderr and "--changed keep" in ran.stderr
    assert (tmp_path / "out.jsonl").read_bytes() == before and len(asked(provider)) == 1


@pytest.mark.parametrize(
    ("choice", "prompts", "answers"),
    [
        (("--changed", "keep"), ["hi c"], ["A", "B", "HI C"]),
        (("--changed", "drop"), ["hi a", "hi b", "hi c"], ["HI A", "HI B", "HI C"]),
        (("--new",), ["hi a", "hi b", "hi c"], ["HI A", "HI B", "HI C"]),
    ],
)
def test_a_change_may_be_kept_dropped_or_begun_anew(
    ask: Any, rows: Rows, read: Read, tmp_path: Path, provider: SimulatedProvider,
    choice: tuple[str, ...], prompts: list[str], answers: list[str],
) -> None:  # fmt: skip
    """Kept answers are not asked again; dropped ones are; a new run leaves the old one in the store."""
    rows({"t": "a"}, {"t": "b"})
    assert ask(*OUT, "--prompt", "{t}").returncode == 0
    rows({"t": "a"}, {"t": "b"}, {"t": "c"})
    asked(provider)
    ran = ask(*OUT, "--prompt", "hi {t}", *choice)
    assert ran.returncode == 0, ran.stderr
    assert sorted(asked(provider)) == prompts
    assert [row["answer"] for row in read(tmp_path / "out.jsonl")] == answers
    again = ask(*OUT, "--prompt", "hi {t}")  # and from then on the run is of the new prompt
    assert again.returncode == 0 and "3 of 3 done and kept" in again.stderr and not provider.log


def test_answers_cannot_be_kept_for_rows_that_are_known_by_something_else(
    ask: Any, rows: Rows, provider: SimulatedProvider
) -> None:
    """A prompt that names other columns would ask all again under `keep`, unknown to the user; refused."""
    rows({"t": "a", "u": "b"})
    assert ask(*OUT, "--prompt", "{t}").returncode == 0
    ran = ask(*OUT, "--prompt", "{t} {u}", "--changed", "keep")
    assert ran.returncode == 2 and "key was t, is t, u" in ran.stderr and len(asked(provider)) == 1


def test_a_key_of_the_user_s(ask: Any, rows: Rows, tmp_path: Path, provider: SimulatedProvider) -> None:
    """With --key a row is known by that column, whatever else changes; twice the same is told first."""
    rows({"id": "x", "t": "a"}, {"id": "y", "t": "b"})
    assert ask(*OUT, "--prompt", "{t}", "--key", "id").returncode == 0
    rows({"id": "y", "t": "B, edited"}, {"id": "x", "t": "a"})
    assert ask(*OUT, "--prompt", "{t}", "--key", "id").returncode == 0
    assert len(asked(provider)) == 2
    rows({"id": "y", "t": "a"}, {"id": "y", "t": "c"})
    ran = ask("in.jsonl", "-o", "other.jsonl", "--prompt", "{t}", "--key", "id")
    assert ran.returncode == 2 and "in.jsonl:2: --key id: 'y' came before" in ran.stderr
    assert not provider.log and not (tmp_path / "other.jsonl").exists()


def test_failed_rows_are_asked_again(here: Any, rows: Rows, read: Read, tmp_path: Path) -> None:
    """By the same command; by --retry-failed only these; with none it says so and asks nobody."""
    rows(*({"n": n} for n in range(6)))
    command = ("map", *OUT, "--prompt", "{n}", "--model", "m", "--concurrency", 1)
    with SimulatedProvider(reply=lambda one: "ok", latency=0, script=[400, None, 400, None, 400]) as provider:
        to = ("--base-url", provider.base_url)
        assert here(*command, *to, "--limit", 3).returncode == 1
        assert [row["error"] is None for row in read(tmp_path / "out.jsonl")] == [False, True, False]
        asked(provider)
        ran = here(*command, *to, "--retry-failed")  # 3 to 5 were never asked, and are not now
        assert "1 of 6 done and kept, 2 failed will be retried, 3 not started are left alone" in ran.stderr
        assert sorted(asked(provider)) == ["0", "2"] and ran.returncode == 1
        assert len(read(tmp_path / "out.jsonl")) == 3
        ran = here(*command, *to)
        assert sorted(asked(provider)) == ["2", "3", "4", "5"] and ran.returncode == 0
        ran = here(*command, *to, "--retry-failed")
        assert ran.returncode == 0 and "there is nothing to retry" in ran.stderr and not provider.log
        (item,) = (one for one in json.loads(here("items", "list", "--json").stdout) if '"4"' in one["key"])
        here("items", "retry", "@last", item["id"], "--done")  # wanted again counts as failed
        assert here(*command, *to, "--retry-failed").returncode == 0 and asked(provider) == ["4"]
    assert [row["answer"] for row in read(tmp_path / "out.jsonl")] == ["ok"] * 6


def test_a_new_run_that_ends_early_does_not_take_a_whole_output_away(
    here: Any, rows: Rows, read: Read, tmp_path: Path
) -> None:
    """What an earlier run has written stays until the new one is whole; what it has asked is kept."""
    rows(*({"n": n} for n in range(6)))
    command = ("map", *OUT, "--prompt", "{n}", "--model", "m", "--concurrency", 1)
    with SimulatedProvider(reply=lambda one: "old", latency=0) as provider:
        assert here(*command, "--base-url", provider.base_url).returncode == 0
    with SimulatedProvider(reply=lambda one: "new", latency=0, script=[None, None, *[402] * 9]) as provider:
        ran = here(*command, "--base-url", provider.base_url, "--new")
        assert ran.returncode == 3 and "2 rows of 6 ended and are kept" in ran.stderr
        assert "--new" not in ran.stderr.splitlines()[-1]
    assert [row["answer"] for row in read(tmp_path / "out.jsonl")] == ["old"] * 6
    with SimulatedProvider(reply=lambda one: "new", latency=0) as provider:
        assert here(*command, "--base-url", provider.base_url).returncode == 0
        assert provider.statistics().asked == 4
    assert [row["answer"] for row in read(tmp_path / "out.jsonl")] == ["new"] * 6


def test_a_limit_is_lifted(
    ask: Any, rows: Rows, read: Read, tmp_path: Path, provider: SimulatedProvider
) -> None:
    """What a try with --limit has answered is kept when all rows are asked."""
    rows(*({"n": n} for n in range(6)))
    assert ask(*OUT, "--prompt", "{n}", "--limit", 2).returncode == 0
    assert ask(*OUT, "--prompt", "{n}").returncode == 0
    assert sorted(asked(provider)) == list("012345") and len(read(tmp_path / "out.jsonl")) == 6


def test_a_budget_is_for_the_whole_run(ask: Any, rows: Rows, read: Read, tmp_path: Path) -> None:
    """Given again, --max-cost counts what was paid before; with more of it the rest is asked."""
    rows(*({"t": f"{n:020}"} for n in range(30)))
    prices = ("--price-input", 1, "--price-output", 1, "--max-tokens", 5, "--json")
    first = json.loads(ask(*OUT, "--prompt", "{t}", *prices, "--max-cost", 130e-6).stdout)
    assert first["skipped"] > 15 and first["ok"] > 4
    again = json.loads(ask(*OUT, "--prompt", "{t}", *prices, "--max-cost", 130e-6).stdout)
    assert again["total_cost"] <= 130e-6 * 1.1 and again["kept"] == first["ok"]
    more = ask(*OUT, "--prompt", "{t}", *prices, "--max-cost", 1)
    assert more.returncode == 0 and json.loads(more.stdout)["requests"] == 30 - again["ok"]
    assert all(row["error"] is None for row in read(tmp_path / "out.jsonl"))


def test_the_store_may_lie_elsewhere(
    ask: Any, rows: Rows, tmp_path: Path, provider: SimulatedProvider
) -> None:
    """--store says where; the run is found there by its output, from whatever folder."""
    rows({"n": 1})
    (tmp_path / "other").mkdir()
    assert ask(*OUT, "--prompt", "{n}", "--store", "other/x.db").returncode == 0
    assert not list(tmp_path.glob("*runs.db"))
    absolute = tmp_path / "other" / ".." / "out.jsonl"
    assert ask("in.jsonl", "-o", absolute, "--prompt", "{n}", "--store", "other/x.db").returncode == 0
    assert len(asked(provider)) == 1


def test_a_run_of_before_is_found_in_the_store_of_its_folder(
    ask: Any, here: Any, rows: Rows, tmp_path: Path, provider: SimulatedProvider
) -> None:
    """An earlier version kept the runs of all outputs in runs.db: there such a run goes on, and new outputs
    have stores of their own."""
    rows({"n": 1}, {"n": 2})
    for out in ("one.jsonl", "two.jsonl"):
        assert ask("in.jsonl", "-o", out, "--prompt", "{n}", "--store", "runs.db").returncode == 0
    rows({"n": 1}, {"n": 2}, {"n": 3})
    asked(provider)
    for out, expected in (("one.jsonl", ["3"]), ("two.jsonl", ["3"]), ("new.jsonl", ["1", "2", "3"])):
        assert ask("in.jsonl", "-o", out, "--prompt", "{n}").returncode == 0
        assert sorted(asked(provider)) == expected
    assert {path.name for path in tmp_path.glob("*.db")} == {"runs.db", "new.jsonl.runs.db"}
    assert [one["store"] for one in json.loads(here("runs", "list", "--json").stdout)] == [
        "runs.db",
        "runs.db",
        "new.jsonl.runs.db",
    ]


def test_two_outputs_in_one_folder_are_made_at_the_same_time(
    child: Callable[..., Any], ask: Any, here: Any, rows: Rows, tmp_path: Path, provider: SimulatedProvider
) -> None:
    """While one map is at work another goes from its beginning to its end; both runs are in the list."""
    path = rows({"n": 1})
    waiting = threading.Event()

    async def reply(one: Asked) -> str:
        waiting.set()
        await asyncio.Event().wait()
        return ""

    with SimulatedProvider(reply=reply, latency=0) as slow:
        command = ("map", path, "--prompt", "{n}", "--model", "m", "--base-url", slow.base_url)
        running = child(*command, "-o", tmp_path / "slow.jsonl")
        assert waiting.wait(30)
        assert ask("in.jsonl", "-o", "fast.jsonl", "--prompt", "{n}").returncode == 0
        found = {one["store"]: one["status"] for one in json.loads(here("runs", "list", "--json").stdout)}
        assert found == {"slow.jsonl.runs.db": "running", "fast.jsonl.runs.db": "finished"}
        running.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGSTOP")
def test_a_second_process_is_refused(
    child: Callable[..., Any], here: Any, rows: Rows, tmp_path: Path
) -> None:
    """While a process writes to the store another is told who it is, and asks nobody; exit code 3."""
    path = rows({"n": 1})
    waiting = threading.Event()

    async def reply(one: Asked) -> str:
        waiting.set()
        await asyncio.Event().wait()
        return ""

    with SimulatedProvider(reply=reply, latency=0) as provider:
        command = ("map", path, "--prompt", "{n}", "--model", "m", "--base-url", provider.base_url)
        running = child(*command, "-o", tmp_path / "out.jsonl")
        assert waiting.wait(30)
        ran = here(*command, "-o", "out.jsonl")
        assert ran.returncode == 3 and f"process {running.pid}" in ran.stderr and "--store" in ran.stderr
        assert provider.statistics().asked == 1
        running.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_place_where_no_store_can_be_made(ask: Any, rows: Rows, provider: SimulatedProvider) -> None:
    """It is told before anybody is asked; exit code 2."""
    rows({"n": 1})
    ran = ask(*OUT, "--prompt", "{n}", "--store", "/proc/runs.db")
    assert ran.returncode == 2 and "/proc/runs.db" in ran.stderr and not provider.log


def test_a_store_that_fails_on_the_way(
    ask: Any, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where answers cannot be recorded any more it stops, says so, and can go on; exit code 1."""
    from asyncflow.durability import sqlwriter

    rows(*({"n": n} for n in range(300)))
    append, count = sqlwriter.SQLWriter.append, 0

    def failing(self: Any, places: Any, records: Any) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise RuntimeError("the disk is on fire")
        append(self, places, records)

    monkeypatch.setattr(sqlwriter.SQLWriter, "append", failing)
    ran = ask(*OUT, "--prompt", "{n}", "--concurrency", 4)
    assert ran.returncode == 1 and "the disk is on fire" in ran.stderr and "This goes on" in ran.stderr
    assert ask(*OUT, "--prompt", "{n}").returncode == 0
