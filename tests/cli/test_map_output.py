"""Formats in and out of `asyncflow map`, the estimate, and `.part`."""

from __future__ import annotations

import csv
import datetime
import json
import math
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from asyncflow.testing import Asked, SimulatedProvider
from asyncflow.testing.chat import Chat

Rows = Callable[..., Path]
Read = Callable[[Path], list[Any]]

SCHEMA = {
    "type": "object",
    "properties": {"stars": {"type": "integer"}, "tags": {"type": "array"}, "sure": {"type": "boolean"}},
    "required": ["stars"],
}


def table(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV or Parquet file."""
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        return rows
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.mark.parametrize("source", ["jsonl", "csv", "tsv", "parquet"])
@pytest.mark.parametrize("target", ["jsonl", "csv", "tsv", "parquet"])
def test_every_format_into_every_format(
    ask: Any, tmp_path: Path, read: Read, source: str, target: str
) -> None:
    """The row's values and the answer arrive, text that needs quoting included."""
    texts = ['say "hi", é', "two\nlines\tand a tab", "=1+1"]
    path = tmp_path / f"in.{source}"
    if source == "jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    elif source == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="\t" if source == "tsv" else ",")
            writer.writerows([["text"], *([text] for text in texts)])
    ran = ask(path.name, "-o", f"out.{target}", "--prompt", "{text}")
    assert ran.returncode == 0, ran.stderr
    out = tmp_path / f"out.{target}"
    got = read(out) if target == "jsonl" else table(out)
    assert [(row["text"], row["answer"]) for row in got] == [(text, text.upper()) for text in texts]
    attempts = {str(row["attempts"]) for row in got}
    assert attempts == {"1"}


def test_tables_have_a_column_for_each_value(here: Any, rows: Rows, tmp_path: Path) -> None:
    """CSV: usage, error and the fields of the answer get columns of their own; nested values are JSON."""
    rows({"n": 1, "more": {"a": [1]}}, {"n": 2, "late": True})
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    answers = {"1": '{"stars": 4, "tags": ["é"], "sure": true}', "2": "{}"}
    with SimulatedProvider(reply=lambda asked: answers[asked.messages[0]["content"]], latency=0) as provider:
        ran = here(
            "map", "in.jsonl", "-o", "out.csv", "--prompt", "{n}", "--model", "m",
            "--base-url", provider.base_url, "--schema", "schema.json",
        )  # fmt: skip
    assert ran.returncode == 1
    first, second = table(tmp_path / "out.csv")
    assert list(first) == [
        *("n", "more", "late", "answer.stars", "answer.tags", "answer.sure", "finish_reason"),
        *("usage.input_tokens", "usage.output_tokens", "usage.cached_input_tokens", "cost", "attempts"),
        *("error.kind", "error.message"),
    ]
    assert (first["more"], first["late"], second["late"]) == ('{"a": [1]}', "", "true")
    assert (first["answer.stars"], first["answer.tags"], first["answer.sure"]) == ("4", '["é"]', "true")
    assert (first["error.kind"], second["error.kind"]) == ("", "ModelOutputError")
    assert second["answer.stars"] == "" and int(second["usage.output_tokens"]) > 0


@pytest.mark.parametrize("target", ["jsonl", "csv"])
def test_usage_that_nobody_told(
    ask: Any, rows: Rows, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """Where the server says nothing of usage, a row has none: null, or empty cells, and no zeros."""
    monkeypatch.setattr(Chat, "_usage", lambda *_: {})
    rows({"text": "a"})
    assert ask("in.jsonl", "-o", f"out.{target}", "--prompt", "{text}").returncode == 0
    out = tmp_path / f"out.{target}"
    row = read(out)[0] if target == "jsonl" else table(out)[0]
    assert row["answer"] == "A"
    assert {value for name, value in row.items() if name.startswith("usage")} <= {None, ""}


def test_parquet_keeps_types(here: Any, tmp_path: Path, rows: Rows) -> None:
    """Columns of a Parquet input keep their types; of JSON lines they get the ones that fit all rows."""
    moment = datetime.datetime(2026, 11, 20, 12, tzinfo=datetime.UTC)
    given = {"n": pyarrow.array([1, None], pyarrow.int16()), "at": [moment, None], "raw": [b"\0", b"a"]}
    pyarrow.parquet.write_table(pyarrow.table(given), tmp_path / "in.parquet")
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    reply = '{"stars": 4.0, "sure": false, "tags": []}'
    with SimulatedProvider(reply=lambda asked: reply, latency=0) as provider:
        options = ("--model", "m", "--base-url", provider.base_url, "--schema", "schema.json")
        assert here("map", "in.parquet", "-o", "a.parquet", "--prompt", "{n} {at}", *options).returncode == 0
        assert {asked.messages[0]["content"] for asked in provider.log} == {
            "1 2026-11-20T12:00:00+00:00",
            " ",
        }
        rows({"i": 1, "f": 1, "b": True, "m": 1}, {"i": 2, "f": 1.5, "b": None, "m": "x"})
        assert here("map", "in.jsonl", "-o", "b.parquet", "--prompt", "{i}", *options).returncode == 0
        assert here("map", "in.parquet", "-o", "c.jsonl", "--prompt", "{n}", *options).returncode == 0
    kept = pyarrow.parquet.read_schema(tmp_path / "a.parquet")
    assert [str(kept.field(name).type) for name in ("n", "raw")] == ["int16", "binary"]
    assert [str(kept.field(f"answer.{name}").type) for name in ("stars", "tags", "sure")] == [
        "int64",
        "string",
        "bool",
    ]
    first = table(tmp_path / "a.parquet")[0]
    assert (first["n"], first["at"], first["raw"], first["answer.stars"]) == (1, moment, b"\0", 4)
    made = pyarrow.parquet.read_schema(tmp_path / "b.parquet")
    assert [str(made.field(name).type) for name in "ifbm"] == ["int64", "double", "bool", "string"]
    assert json.loads((tmp_path / "c.jsonl").read_text().splitlines()[0])["at"] == "2026-11-20T12:00:00+00:00"


@pytest.mark.parametrize(
    ("kind", "answers", "type", "cells"),
    [
        ("number", ["1", "2.5", str(2**60)], "double", [1.0, 2.5, 2.0**60]),  # which a float holds
        ("number", ["1", "2.5", str(2**53 + 1)], "string", ["1", "2.5", str(2**53 + 1)]),
        ("number", ["1", str(10**400)], "string", ["1", str(10**400)]),
        ("integer", ["1", str(2**63 - 1)], "int64", [1, 2**63 - 1]),
        ("integer", ["1", "2.0", str(2**63)], "string", ["1", "2.0", str(2**63)]),
    ],
)
def test_answers_keep_their_digits(
    here: Any, rows: Rows, tmp_path: Path, kind: str, answers: list[str], type: str, cells: list[Any]
) -> None:
    """Where Parquet's numbers do not hold an answer, its column is text, and that is said. So it is again."""
    rows(*({"n": n} for n in range(len(answers))))
    form = {"type": "object", "properties": {"a": {"type": kind}, "b": {"type": "number"}}}
    (tmp_path / "schema.json").write_text(json.dumps(form))

    def reply(asked: Asked) -> str:
        return f'{{"a": {answers[int(asked.prompt)]}, "b": 0.5}}'

    with SimulatedProvider(reply=reply, latency=0) as provider:
        command = (
            "map", "in.jsonl", "-o", "out.parquet", "--prompt", "{n}", "--schema", "schema.json",
            "--model", "m", "--base-url", provider.base_url, "--prefix", "my ",
        )  # fmt: skip
        for _ in range(2):
            ran = here(*command)
            assert ran.returncode == 0, ran.stderr
            assert ("my answer.a is text" in ran.stderr) == (type == "string")
            written = pyarrow.parquet.read_table(tmp_path / "out.parquet")
            assert written.schema.field("my answer.a").type == type
            assert written.column("my answer.a").to_pylist() == cells
            assert written.column("my answer.b").to_pylist() == [0.5] * len(answers)
        assert provider.statistics().asked == len(answers)


def test_values_that_utf8_or_json_cannot_hold(ask: Any, tmp_path: Path) -> None:
    """Half a surrogate pair and NaN do not break a run, whatever the format that is written."""
    (tmp_path / "in.jsonl").write_text('{"text": "a\\ud800"}\n')
    for suffix in ("jsonl", "csv", "parquet"):
        assert ask("in.jsonl", "-o", f"out.{suffix}", "--prompt", "{text}").returncode == 0
    assert json.loads((tmp_path / "out.jsonl").read_text())["text"] == "a\ud800"
    pyarrow.parquet.write_table(pyarrow.table({"x": [math.nan]}), tmp_path / "in.parquet")
    assert ask("in.parquet", "-o", "nan.jsonl", "--prompt", "{x}").returncode == 0
    assert json.loads((tmp_path / "nan.jsonl").read_text())["x"] is None


def test_overwrite(ask: Any, rows: Rows, read: Read, tmp_path: Path) -> None:
    """--overwrite replaces an output that is of no run; the outputs of runs need no such word."""
    rows({"n": "a"})
    (tmp_path / "out.jsonl").write_text("old")
    assert ask("in.jsonl", "-o", "out.jsonl", "--prompt", "{n}", "--overwrite").returncode == 0
    assert [row["answer"] for row in read(tmp_path / "out.jsonl")] == ["A"]
    assert ask("in.jsonl", "-o", "out.jsonl", "--prompt", "{n}").returncode == 0


def test_an_output_that_appears_meanwhile(here: Any, rows: Rows, read: Read, tmp_path: Path) -> None:
    """A file that somebody makes during the run is not replaced; the answers are kept."""
    rows({"n": 1})

    def reply(asked: Asked) -> str:
        (tmp_path / "out.jsonl").write_text("theirs")
        return "ok"

    with SimulatedProvider(reply=reply, latency=0) as provider:
        command = ("map", "in.jsonl", "-o", "out.jsonl", "--prompt", "{n}", "--model", "m")
        ran = here(*command, "--base-url", provider.base_url)
        assert ran.returncode == 1 and "somebody made it meanwhile" in ran.stderr
        assert (tmp_path / "out.jsonl").read_text() == "theirs"
        (tmp_path / "out.jsonl").unlink()
        assert here(*command, "--base-url", provider.base_url).returncode == 0
        assert provider.statistics().asked == 1
    assert [row["answer"] for row in read(tmp_path / "out.jsonl")] == ["ok"]


def test_estimate(ask: Any, rows: Rows, tmp_path: Path, provider: SimulatedProvider) -> None:
    """--estimate asks five rows, says tokens, cost and time of all with a range, and writes nothing."""
    rows(*({"t": "word " * (n % 7)} for n in range(200)))
    prices = ("--price-input", 1, "--price-output", 2)
    ran = ask("in.jsonl", "--prompt", "{t}", "--estimate", *prices)
    assert ran.returncode == 0, ran.stderr
    assert len(provider.log) == 5 and [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    assert "5 of 200 rows were asked" in ran.stdout
    for word in ("tokens read", "tokens written", "cost", "seconds", "nine times in ten"):
        assert word in ran.stdout
    assert "at --concurrency auto, if nothing is refused" in ran.stdout
    figures = json.loads(
        ask("in.jsonl", "--prompt", "{t}", "--estimate", "--json", "--sample", 200, *prices).stdout
    )
    assert (figures["rows"], figures["sampled"], figures["failed"]) == (200, 200, 0)
    cost = figures["cost"]
    assert cost["low"] == pytest.approx(cost["high"]) == pytest.approx(figures["spent"])  # no doubt is left


def test_an_estimate_that_fails(here: Any, rows: Rows) -> None:
    """Where the whole sample fails, its error is said; exit code 1, and 3 where the key is refused."""
    rows({"n": 1})
    for status, code in ((400, 1), (401, 3)):
        with SimulatedProvider(latency=0, script=[status] * 5) as provider:
            ran = here(
                "map",
                "in.jsonl",
                "--prompt",
                "{n}",
                "--model",
                "m",
                "--base-url",
                provider.base_url,
                "--estimate",
            )
        assert ran.returncode == code and f"simulated {status}" in ran.stderr


def test_a_simulated_estimate_says_so(here: Any, rows: Rows) -> None:
    """The figures of --estimate --simulate are no model's, and it is said."""
    rows({"n": 1})
    ran = here("map", "in.jsonl", "--prompt", "{n}", "--simulate", "--estimate")
    assert ran.returncode == 0 and "no model's figures" in ran.stdout


class _WithoutUsage(BaseHTTPRequestHandler):
    """Answers every chat call, and says nothing of tokens."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"choices": [{"message": {"content": "hello"}}]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_an_estimate_of_what_nobody_tells(here: Any, rows: Rows) -> None:
    """Where answers say nothing of tokens, neither those nor cost are 0 but unknown, and that is said."""
    rows({"n": 1}, {"n": 2})
    prices = ("--price-input", "1", "--price-output", "1")
    with ThreadingHTTPServer(("127.0.0.1", 0), _WithoutUsage) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
        asked = (
            "map",
            "in.jsonl",
            "--prompt",
            "{n}",
            "--model",
            "m",
            "--base-url",
            url,
            "--estimate",
            *prices,
        )
        try:
            said = here(*asked).stdout
            figures = json.loads(here(*asked, "--json").stdout)
        finally:
            server.shutdown()
            thread.join()
    assert "unknown" in said and "says nothing of tokens" in said and "cost  " not in said
    assert [figures[name] for name in ("input_tokens", "output_tokens", "cost", "spent")] == [None] * 4
    assert figures["seconds"]["expected"] >= 0
