"""`asyncflow map --cache`: answers of earlier runs, whatever their output was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from asyncflow.testing import SimulatedProvider


@pytest.mark.parametrize("cache", ["responses.db", "one.jsonl.runs.db"])
def test_another_output_pays_only_for_what_is_new(
    ask: Any, rows: Any, read: Any, tmp_path: Path, provider: SimulatedProvider, cache: str
) -> None:
    """Also in the file of the run itself; the summary and the rows say which answers were free."""
    rows({"t": "a"}, {"t": "b"})
    price = ("--price-input", 1000, "--price-output", 1000)
    command = ("in.jsonl", "--prompt", "{t}", "--cache", cache, *price)
    assert ask(*command, "-o", "one.jsonl").returncode == 0
    rows({"t": "b"}, {"t": "c"}, {"t": "a"})
    ran = ask(*command, "-o", "two.jsonl")
    assert ran.returncode == 0 and "1 request, 2 answers from the cache" in ran.stdout
    got = read(tmp_path / "two.jsonl")
    assert [row["answer"] for row in got] == ["B", "C", "A"] and provider.statistics().asked == 3
    assert [row["attempts"] for row in got] == [0, 1, 0]
    assert [row["cost"] > 0 for row in got] == [False, True, False]


def test_an_estimate_asks(ask: Any, rows: Any, provider: SimulatedProvider) -> None:
    """The sample is asked though the cache has it; what it paid for is kept."""
    rows({"t": "a"}, {"t": "b"})
    command = ("in.jsonl", "--prompt", "{t}", "--cache", "responses.db", "--json")
    for _ in range(2):
        assert json.loads(ask(*command, "--estimate").stdout)
    assert json.loads(ask(*command, "-o", "out.jsonl").stdout)["cached"] == 2
    assert provider.statistics().asked == 4


def test_a_cache_that_is_none(ask: Any, here: Any, rows: Any, tmp_path: Path) -> None:
    """Told before anything is paid, and left as it was; the simulated provider has nothing to keep."""
    rows({"t": "a"})
    (tmp_path / "diary.txt").write_text("Dear diary " * 50)
    ran = ask("in.jsonl", "-o", "out.jsonl", "--prompt", "{t}", "--cache", "diary.txt")
    assert ran.returncode == 2 and "--cache" in ran.stderr and "left as it is" in ran.stderr
    ran = here("map", "in.jsonl", "-o", "o.jsonl", "--prompt", "{t}", "--cache", "c.db", "--simulate")
    assert ran.returncode == 2 and "--simulate" in ran.stderr and not (tmp_path / "c.db").exists()
