"""Bad input and bad usage of `asyncflow map`: each is told with file and line before a call is made."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from asyncflow.cli.map.rows import RowsError, rows_of
from asyncflow.cli.map.rows_csv import CSVRows
from asyncflow.cli.map.rows_jsonl import JSONLRows
from asyncflow.cli.map.scan import again, scan
from asyncflow.cli.map.template import Template
from asyncflow.cli.usage import UsageError
from asyncflow.testing import SimulatedProvider

Rows = Callable[..., Path]

GOOD = '{"text": "a"}\n'
JSONL = [
    ("broken", GOOD * 16 + '{"text": "b",}\n' + GOOD, ":17: not JSON: ", '"text": "b",}'),
    ("cut off", GOOD + '{"text": "b', ":2: not JSON: ", "was the file cut off?"),
    ("an array", GOOD + "[1]\n", ":2: an array, where an object", ""),
    ("a text", '"text"\n', ":1: a text, where an object", ""),
    ("NaN", '{"text": NaN}\n', ":1: NaN is not JSON", "null"),
    ("latin-1", GOOD.encode() + '{"text": "é"}\n'.encode("latin-1"), ":2: not utf-8: byte 0xe9", "latin-1"),
    ("utf-16", GOOD.encode("utf-16"), ":1: not utf-8: byte 0xff", "utf-16"),
    ("deep", "[" * 100_000 + "\n", ":1: ", "recursion"),
    ("a missing column", GOOD + '{"txt": "b", "n": 1}\n', ":2: no column 'text'", "the columns are: txt, n"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said", "more"), [row[1:] for row in JSONL], ids=[row[0] for row in JSONL])
def test_bad_json_lines(
    ask: Any, tmp_path: Path, provider: SimulatedProvider, text: str | bytes, said: str, more: str
) -> None:
    """The file, the line and what is wrong with it are named; nothing is asked or written; exit code 2."""
    (tmp_path / "in.jsonl").write_bytes(text.encode() if isinstance(text, str) else text)
    ran = ask("in.jsonl", "-o", "out.jsonl", "--prompt", "{text}")
    assert ran.returncode == 2 and ran.stdout == ""
    assert "asyncflow map: in.jsonl" + said in ran.stderr and more in ran.stderr
    assert not provider.log and [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


CSV = [
    ("too few cells", "text,n\na,1\nb\n", ":3: 1 cell, but there are 2 columns"),
    ("too many cells", "text,n\na,1,2\n", ":2: 3 cells, but there are 2 columns"),
    ("an open quote", 'text,n\na,1\n"b,2\nc,3\n', ":3: a quote is opened in this row and never closed"),
    ("a stray quote", 'text,n\n"a"b,1\n', ":2: not CSV"),
    ("a double header", "text,n,text\n", ":1: more than one column is called 'text'"),
    ("nothing", "", ":1: it is empty"),
    ("NUL", "text,n\na\0,1\n", ":2: a NUL character"),
    ("latin-1", "text,n\na,1\n\né,2\n".encode("latin-1"), ":4: not utf-8: byte 0xe9 at character 1"),
    ("a missing column", "txt,n\na,1\n", ": no column 'text', which --prompt names; the columns are: txt, n"),
]


@pytest.mark.parametrize(("text", "said"), [row[1:] for row in CSV], ids=[row[0] for row in CSV])
def test_bad_csv(tmp_path: Path, text: str | bytes, said: str) -> None:
    """As for JSON lines; a row is named by the line that it begins in, blank lines counted."""
    path = tmp_path / "in.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(RowsError) as caught:
        scan(CSVRows(path), ("text",))
    assert f"{path}{said}" in str(caught.value)


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_byte_order_mark_line_ends_and_blank_lines(tmp_path: Path, ends: str) -> None:
    """A BOM is no part of the first name, any line end ends a line, blank lines are passed over."""
    (tmp_path / "a.jsonl").write_bytes(("\ufeff" + ends.join(['{"é": 1}', "", " ", '{"é": 2}'])).encode())
    (tmp_path / "a.csv").write_bytes(("\ufeff" + ends.join(["é,b", "", "1,x", "   ", "2,y"])).encode())
    assert [row.values["é"] for row in rows_of(tmp_path / "a.jsonl")] == [1, 2]
    assert [(row.where[-2:], row.values) for row in rows_of(tmp_path / "a.csv")] == [
        (":3", {"é": "1", "b": "x"}),
        (":5", {"é": "2", "b": "y"}),
    ]


def test_cells_with_line_ends_and_of_any_length(tmp_path: Path) -> None:
    """Quoted cells may hold line ends; 300,000 characters are one cell, and the limit is put back."""
    before = csv.field_size_limit()
    (tmp_path / "a.csv").write_text('a,b\n"1\n2",x\n' + "y" * 300_000 + ",z\n")
    first, second = rows_of(tmp_path / "a.csv")
    assert first.values["a"] == "1\n2" and second.where.endswith(":4")
    assert len(second.values["a"]) == 300_000
    assert csv.field_size_limit() == before


def test_other_encodings_and_delimiters(tmp_path: Path) -> None:
    """--encoding and --delimiter read what Excel writes in Europe; a .tsv has tabs without being told."""
    (tmp_path / "a.csv").write_bytes("a;b\né;1,5\n".encode("cp1252"))
    (tmp_path / "b.tsv").write_bytes("a\tb\n1,5\t2\n".encode("utf-16"))
    (row,) = rows_of(tmp_path / "a.csv", encoding="cp1252", delimiter=";")
    assert row.values == {"a": "é", "b": "1,5"}
    (row,) = rows_of(tmp_path / "b.tsv", encoding="utf-16")
    assert row.values == {"a": "1,5", "b": "2"}


def test_bad_parquet(ask: Any, tmp_path: Path) -> None:
    """A truncated file, and one with two columns of a name, are refused with the file's name; exit code 2."""
    pyarrow.parquet.write_table(pyarrow.table({"n": [1, 2]}), tmp_path / "in.parquet")
    whole = (tmp_path / "in.parquet").read_bytes()
    (tmp_path / "in.parquet").write_bytes(whole[:-20])
    ran = ask("in.parquet", "-o", "out.jsonl", "--prompt", "{n}")
    assert ran.returncode == 2 and "in.parquet: not a whole Parquet file" in ran.stderr
    twice = pyarrow.Table.from_arrays([pyarrow.array([1])] * 2, names=["n", "n"])
    pyarrow.parquet.write_table(twice, tmp_path / "in.parquet")
    ran = ask("in.parquet", "-o", "out.jsonl", "--prompt", "{n}")
    assert ran.returncode == 2 and "more than one column is called 'n'" in ran.stderr


def test_parquet_without_pyarrow(ask: Any, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pyarrow is missing, one line says how to install it; other formats do not need it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet")
    rows({"n": 1})
    ran = ask("in.jsonl", "-o", "out.parquet", "--prompt", "{n}")
    assert ran.returncode == 2 and "pip install 'asyncflow-engine[parquet]'" in ran.stderr
    assert ask("in.jsonl", "-o", "out.csv", "--prompt", "{n}").returncode == 0


USAGE = [
    (("in.txt", "-o", "out.jsonl"), "in.txt: its name must end in .jsonl"),
    (("in.jsonl", "-o", "out.xlsx"), "out.xlsx: its name must end in .jsonl"),
    (("none.jsonl", "-o", "out.jsonl"), "none.jsonl: No such file"),
    (("folder.jsonl", "-o", "out.jsonl"), "folder.jsonl: it is no plain file"),
    (("loop.jsonl", "-o", "out.jsonl"), "loop.jsonl: Too many levels of symbolic links"),
    (("in.jsonl",), "-o is missing"),
    (("in.jsonl", "-o", "there.jsonl"), "there.jsonl: it exists, and there.jsonl.runs.db holds no run"),
    (("in.jsonl", "-o", "in.jsonl", "--overwrite"), "it is the input itself"),
    (("in.jsonl", "-o", "folder.jsonl", "--overwrite"), "it is a folder"),
    (("in.jsonl", "-o", "nowhere/out.jsonl"), "there is no folder nowhere"),
    (("in.jsonl", "-o", "out.jsonl", "--retry-failed"), "nothing has failed yet"),
    (("in.jsonl", "-o", "out.jsonl", "--retry-failed", "--new"), "leave --new out"),
    (("in.jsonl", "-o", "out.jsonl", "--changed", "maybe"), "refuse, keep or drop"),
    (("in.jsonl", "-o", "out.jsonl", "--key", "id"), "no column 'id', which --key names"),
    (("in.jsonl", "-o", "out.jsonl", "--key", "n,"), "a column's name is missing"),
    (("in.jsonl", "-o", "out.jsonl", "--store", "nowhere/runs.db"), "there is no directory"),
    (("in.jsonl", "-o", "out.jsonl", "--store", "mysql://host/db"), "is no store"),
    (("in.jsonl", "-o", "out.jsonl", "--schema", "none.json"), "--schema none.json: No such file"),
    (("in.jsonl", "-o", "out.jsonl", "--schema", "bad.json"), "--schema bad.json:2: not JSON"),
    (("in.jsonl", "-o", "out.jsonl", "--schema", "type.json"), "$.properties.a: 'text' is no type"),
    (("in.jsonl", "-o", "out.jsonl", "--schema", "list.json"), "a JSON schema is an object"),
    (("in.jsonl", "-o", "out.jsonl", "--schema", "vain.json"), "it demands nothing"),
    (("in.jsonl", "-o", "out.jsonl", "--price-input", "1"), "--price-input and --price-output go together"),
    (("in.jsonl", "-o", "out.jsonl", "--provider", "other"), "it is one of openai, anthropic"),
    (("in.jsonl", "-o", "out.jsonl", "--encoding", "utf-99"), "--encoding utf-99"),
    (("in.jsonl", "-o", "out.jsonl", "--simulate"), "give one of them"),
    (("in.jsonl", "-o", "out.jsonl", "--concurrency", "many"), "a whole number from 1"),
    (("in.jsonl", "-o", "out.jsonl", "--concurrency", "0"), "a whole number from 1"),
    (("in.jsonl", "-o", "out.jsonl", "--timeout", "nan"), "a finite number"),
    (("in.jsonl", "-o", "out.jsonl", "--timeout", "-1"), "-1.0: a finite number from 0"),
    (("in.jsonl", "-o", "out.jsonl", "--timeout", "0"), "it must be above 0"),
    (("in.jsonl", "-o", "out.jsonl", "--delimiter", ";;"), "one character"),
    (("in.jsonl", "-o", "out.jsonl", "--wrong"), "--wrong"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"), USAGE, ids=[" ".join(row[0][1:]) or row[0][0] for row in USAGE]
)
def test_wrong_usage(
    ask: Any, rows: Rows, tmp_path: Path, provider: SimulatedProvider, arguments: tuple[str, ...], said: str
) -> None:
    """Told in one line, with what to do; nothing is asked, written or lost; exit code 2."""
    rows({"n": 1})
    for name, text in {
        "in.txt": "",
        "there.jsonl": "precious",
        "bad.json": "{\n!}",
        "type.json": '{"properties": {"a": {"type": "text"}}}',
        "list.json": "[]",
        "vain.json": '{"title": "x"}',
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    before = sorted(tmp_path.iterdir())
    ran = ask(*arguments, "--prompt", "{n}")
    assert ran.returncode == 2 and said in ran.stderr
    assert not provider.log and sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.jsonl").read_text() == "precious"


def test_no_key(here: Any, rows: Rows) -> None:
    """Without a key and without a server of one's own, --simulate is offered; without a model too."""
    rows({"n": 1})
    ran = here("map", "in.jsonl", "-o", "out.jsonl", "--prompt", "{n}", "--model", "gpt-5-mini")
    assert ran.returncode == 2 and "OPENAI_API_KEY" in ran.stderr and "--simulate" in ran.stderr
    ran = here("map", "in.jsonl", "-o", "out.jsonl", "--prompt", "{n}")
    assert ran.returncode == 2 and "--model is missing" in ran.stderr and "--simulate" in ran.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_an_output_that_cannot_be_made(ask: Any, rows: Rows, provider: SimulatedProvider) -> None:
    """A place where no file can be made, whoever asks, is told before a call is made; exit code 2."""
    rows({"n": 1})
    ran = ask("in.jsonl", "-o", "/proc/out.jsonl", "--prompt", "{n}")
    assert ran.returncode == 2 and "out.jsonl: it cannot be written" in ran.stderr and not provider.log


def test_columns_of_our_names(
    ask: Any, rows: Rows, read: Any, tmp_path: Path, provider: SimulatedProvider
) -> None:
    """An input that has an `answer` already is refused, and goes through with --prefix, nothing lost."""
    rows({"text": "a", "answer": "old"})
    ran = ask("in.jsonl", "-o", "out.jsonl", "--prompt", "{text}")
    assert ran.returncode == 2 and "it has a column 'answer'" in ran.stderr and not provider.log
    ran = ask("in.jsonl", "-o", "out.jsonl", "--prompt", "{text}", "--prefix", "new_")
    assert ran.returncode == 0
    (row,) = read(tmp_path / "out.jsonl")
    assert (row["answer"], row["new_answer"], row["new_error"]) == ("old", "A", None)


@pytest.mark.parametrize("text", ["{", "a}", "{}", "{a", "{a{b}}"])
def test_broken_templates(text: str) -> None:
    """A brace that opens or closes nothing is an error that says how to mean a brace."""
    with pytest.raises(UsageError, match="written twice"):
        Template(text)


def test_json_in_a_prompt(ask: Any, rows: Rows) -> None:
    """Braces of JSON are taken for a column: it is said how a brace is written."""
    rows({"n": 1})
    ran = ask("in.jsonl", "-o", "out.jsonl", "--prompt", 'As {"number": 1}: {n}')
    assert ran.returncode == 2 and "no column '\"number\": 1'" in ran.stderr and "written twice" in ran.stderr
    assert "written twice" not in ask("in.jsonl", "-o", "out.jsonl", "--prompt", "{m}").stderr


def test_a_template_reaches_the_row_only() -> None:
    """Names are columns, whatever they look like; values are put in once and never read as templates."""
    template = Template("{a.__class__} {b[0]} {first name} {c!r:>9}")
    assert template.columns == ("a.__class__", "b[0]", "first name", "c!r:>9")
    assert Template("{a}{b}").fill({"a": "{b}", "b": None}) == "{b}"
    assert Template("{a} {b} {c}").fill({"a": True, "b": ["é"], "c": 1.5}) == 'true ["é"] 1.5'


def test_a_file_that_changes(tmp_path: Path) -> None:
    """A file that is changed after it was checked is not read any further than that is noticed."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"n": 1}\n')
    rows = JSONLRows(path)
    found = scan(rows, ("n",))
    path.write_text('{"n": 1}\n{"n": 2}\n')
    with pytest.raises(RowsError, match="changed after it was checked"):
        list(again(rows, found))
    found = scan(rows, ("n",))
    reading = again(rows, found)
    next(reading)
    with path.open("a") as file:
        file.write('{"n": 3}\n')
    assert next(reading).values == {"n": 2}
    with pytest.raises(RowsError, match="changed while it was read"):
        next(reading)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((1, 1.5), "float"),
        ((2**53, 1.5), "float"),
        ((2**53 + 1, 1.5), "json"),
        ((1.5, None, 1, -(2**60)), "json"),
        ((1, 2**60, None, 2), "int"),
        ((1, 2**63), "json"),
    ],
)
def test_no_column_rounds_whole_numbers(tmp_path: Path, values: tuple[float | None, ...], kind: str) -> None:
    """Where a number of a column is none that a float holds, the column is not made one of floats."""
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"n": value}) + "\n" for value in values))
    assert scan(JSONLRows(path), ("n",)).kinds == {"n": kind}


def test_a_sample_is_drawn_fairly(tmp_path: Path) -> None:
    """Each row is drawn equally often, whatever its place."""
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"n": n}) + "\n" for n in range(10)))
    drawn = [0] * 10
    for seed in range(600):
        for row in scan(JSONLRows(path), (), sample=3, seed=seed).sample:
            drawn[row.values["n"]] += 1
    assert sum(drawn) == 1800 and all(130 < count < 230 for count in drawn), drawn
