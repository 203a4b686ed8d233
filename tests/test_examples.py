"""examples/: every program runs at a small size and does what its docstring says."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import os
import subprocess
import sys
import threading
import tracemalloc
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from asyncflow.testing import SimulatedProvider, stand_in

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def example(name: str) -> ModuleType:
    """The program as a module, not run yet."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_program(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program as a user starts it, warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"} | environment,
    )


def test_every_example_is_tested_and_listed() -> None:
    """No program in examples/ is without a test that names it, nor missing from its README."""
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    programs = [path.stem for path in EXAMPLES.glob("*.py")]
    assert len(programs) >= 10
    untested = [name for name in programs if f'"{name}"' not in tests and f"{name}.py" not in tests]
    assert untested == []
    assert [name for name in programs if f"({name}.py)" not in table] == []


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_a_docstring_says_how_to_run_it(path: Path) -> None:
    """Each program opens with what it shows and the command that runs it."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert f"python examples/{path.name}" in docstring


# The cookies.


def test_cookie_line() -> None:
    """Each cookie has sugar, and they leave the line in the order they came."""
    assert example("cookie_line").main(3) == [
        "star cookie 1 with sugar",
        "heart cookie 2 with sugar",
        "moon cookie 3 with sugar",
    ]


def test_cookie_line_as_a_program() -> None:
    """`python examples/cookie_line.py` runs as a program, and prints the cookies and nothing else."""
    ran = as_program("cookie_line")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(ran.stdout.splitlines()) == 6


def test_cookie_factories(capsys: pytest.CaptureFixture[str]) -> None:
    """One recipe makes each flavour in the number ordered."""
    boxes = example("cookie_factories").main(chocolate=3, vanilla=2)
    assert boxes == {"chocolate": ["chocolate cookie"] * 3, "vanilla": ["vanilla cookie"] * 2}
    assert "2 factories" in capsys.readouterr().out


# CSV.


@pytest.mark.parametrize(("rows", "chunk_size", "threads"), [(20_003, 1000, 4), (999, 1000, 2), (1, 1, 3)])
def test_csv_totals_are_pandas_totals(rows: int, chunk_size: int, threads: int) -> None:
    """Whatever the chunks and threads: counts, cents, the largest sale and regions are as on the whole."""
    found = example("csv_in_chunks").main(rows=rows, chunk_size=chunk_size, threads=threads)
    assert found["equal"]
    assert found["statistics_1"] == found[f"statistics_{threads}"] == found["whole"]
    assert found["whole"]["transactions"] == rows


def test_csv_totals_are_exact_money(tmp_path: Path) -> None:
    """The cents are those of the file's own decimal digits, added as fractions, without pandas."""
    module = example("csv_in_chunks")
    path = tmp_path / "sales.csv"
    module.make_sales(path, 5000, seed=7, block=1024)
    lines = path.read_text().splitlines()
    assert lines[0] == "order,region,quantity,amount" and len(lines) == 5001
    assert [line.split(",")[0] for line in lines[1:]] == [str(n) for n in range(5000)]
    exact = sum(Fraction(line.split(",")[3]) for line in lines[1:])
    shared: dict[str, Any] = {"input_file": path}
    module.statistics_flow(chunk_size=600, concurrency=3).run(shared)
    assert Fraction(shared["statistics"]["cents"], 100) == exact
    assert shared["chunks"] == 9


def test_csv_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Ten times the rows take no more memory, beyond a few KiB of results: chunks are read when needed."""
    module = example("csv_in_chunks")
    peaks = []
    for rows in (4000, 4000, 40_000):  # the first run loads what pandas loads on first use
        path = tmp_path / f"{rows}.csv"
        module.make_sales(path, rows)
        tracemalloc.start()
        module.statistics_flow(chunk_size=2000, concurrency=1).run({"input_file": path})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 200_000, peaks


def test_csv_goes_on_to_show_the_statistics(capsys: pytest.CaptureFixture[str]) -> None:
    """The action "show_stats" leads to the second node, which prints the total, once for each mode."""
    found = example("csv_in_chunks").main(rows=100, chunk_size=30, threads=2)
    total = f"{found['whole']['cents'] / 100:,.2f} in all"
    assert capsys.readouterr().out.count(total) == 2


# Images.


def test_images_are_equal_in_both_modes(tmp_path: Path) -> None:
    """Two photographs by three filters are six files, equal byte for byte in turn and at the same time."""
    found = example("images_and_filters").main(tmp_path, enlarge=1, concurrency=6)
    assert found["equal"]
    assert found["files"] == [
        f"{photograph}_{name}.png"
        for photograph in ("china", "flower")
        for name in ("blur", "grayscale", "sepia")
    ]
    for name in found["files"]:
        assert (tmp_path / "in_turn" / name).read_bytes() == (tmp_path / "at_once" / name).read_bytes()


def test_images_hold_what_the_filters_make(tmp_path: Path) -> None:
    """The file named after a photograph and a filter holds that photograph through that filter."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_image

    module = example("images_and_filters")
    module.main(tmp_path, enlarge=1, concurrency=6)
    for photograph in ("china", "flower"):
        original = load_sample_image(f"{photograph}.jpg")
        for name in ("grayscale", "blur", "sepia"):
            with Image.open(tmp_path / "at_once" / f"{photograph}_{name}.png") as saved:
                np.testing.assert_array_equal(np.asarray(saved), getattr(module, name)(original))


def test_the_filters() -> None:
    """Grey stays grey, white turns the colour of sepia's sums, and a blur keeps a flat area as it is."""
    import numpy as np

    module = example("images_and_filters")
    white = np.full((20, 20, 3), 255, dtype=np.uint8)
    np.testing.assert_array_equal(module.grayscale(white), white)
    np.testing.assert_array_equal(module.blur(white), white)
    assert module.sepia(white)[0, 0].tolist() == [255, 255, 239]  # 255 × 0.937 = 238.9
    red = np.zeros((1, 1, 3), dtype=np.uint8)
    red[..., 0] = 200
    assert module.grayscale(red)[0, 0].tolist() == [60, 60, 60]  # 200 × 0.299 = 59.8


# Grades.


def test_school_averages(tmp_path: Path) -> None:
    """Averages per student, class and school are those of the files; every student counts once."""
    for place, grades in {
        "class_a/ann": "8\n6\n",
        "class_a/bob": "5\n",
        "class_b/cem": "1\n2\n6\n",
    }.items():
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / f"{place}.txt").write_text(grades)
    found = example("school_grades").main(tmp_path)
    assert found["students"] == {"class_a": {"ann": 7.0, "bob": 5.0}, "class_b": {"cem": 3.0}}
    assert found["classes"] == {"class_a": 6.0, "class_b": 3.0}
    assert found["average"] == 5.0


def test_school_invents_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a folder it makes a school, the same one each time."""
    school = example("school_grades")
    first, second = school.main(classes=2, students=3), school.main(classes=2, students=3)
    assert first["students"] == second["students"]
    assert [len(students) for students in first["students"].values()] == [3, 2]
    assert "the school: " in capsys.readouterr().out


# Models.


def test_translation_writes_one_file_per_language(tmp_path: Path) -> None:
    """Eight files, each the text marked as its own language, after eight calls in turn and eight at once."""
    module = example("translation")
    found = module.main(text="# Hello\n\nSome text.", output=tmp_path, latency=0)
    assert found["calls"] == 16
    assert [path.name for path in found["files"]] == [
        f"text_{language.lower()}.md" for language in module.LANGUAGES
    ]
    for language, path in zip(module.LANGUAGES, found["files"], strict=True):
        text = path.read_text(encoding="utf-8")
        assert f"# [{language}] Hello" in text and f"[{language}] Some text." in text


def test_translation_at_once_has_all_calls_running_together(tmp_path: Path) -> None:
    """With concurrency=8 the eight calls of the second half are on the wire at the same time."""
    all_asked = asyncio.Barrier(8)

    async def reply(asked: Any) -> str:
        if asked.index >= 8:
            await all_asked.wait()  # nobody is answered before all have asked
        return stand_in(asked)

    with SimulatedProvider(reply=reply, latency=0) as provider, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", provider.base_url)
        patch.setenv("OPENAI_API_KEY", "")
        found = example("translation").main(output=tmp_path, model="any")
    assert found["calls"] == 16


def test_translation_says_what_a_real_model_will_be_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a model, its name, the address and the number of calls are printed, and so many are made."""
    with SimulatedProvider(latency=0) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "")
        example("translation").main(output=tmp_path, model="any-model")
        assert len(provider.log) == 16
        first = capsys.readouterr().out.splitlines()[0]
        assert f"any-model at {provider.base_url}: 16 calls" in first


def test_translation_without_a_model_asks_nobody(tmp_path: Path) -> None:
    """A key and an address in the environment do not make the program spend money."""
    with SimulatedProvider(latency=0) as provider:
        ran = as_program(
            "translation", "--output", str(tmp_path), OPENAI_BASE_URL=provider.base_url, OPENAI_API_KEY="sk-x"
        )
        assert ran.returncode == 0, ran.stderr
        assert not provider.log
    assert len(list(tmp_path.iterdir())) == 8


def test_resume_screening() -> None:
    """Who has a degree and the years qualifies; everybody is judged."""
    found = example("resume_screening").main(latency=0)
    qualified = [n for n in range(12) if n % 3 != 2 and n % 4 != 3]
    assert found == {
        "judged": 12,
        "failed": [],
        "qualified": [f"Candidate {n + 1:02d}" for n in qualified],
    }


def test_resume_screening_asks_again_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An answer that is no JSON is asked for again; what is never JSON is reported, and the rest counted."""
    # The résumé is in the first message; what was wrong with an answer is in the last.
    module = example("resume_screening")
    module.make_resumes(tmp_path, 3)

    def reply(asked: Any) -> str:
        resume = asked.messages[0]["content"]
        if "Candidate 01" in resume and len(asked.messages) == 1:
            return "Let me think."
        return "I would rather not." if "Candidate 02" in resume else stand_in(asked)

    provider = SimulatedProvider(reply=reply, latency=0)
    monkeypatch.setattr(module, "SimulatedProvider", lambda latency: provider)
    found = module.main(tmp_path)
    assert found == {"judged": 2, "failed": ["resume_02.txt"], "qualified": ["Candidate 01"]}
    assert len(provider.log) == 2 + 3 + 1
    assert "could not be judged: resume_02.txt" in capsys.readouterr().out


# Actions.


@pytest.mark.parametrize(
    ("typed", "action", "looks"),
    [
        (("1234",), "paid", 1),
        (("1", "2", "1234"), "paid", 3),
        (("1", "2", "3", "1234"), "kept", 3),
    ],
)
def test_actions_and_loops(
    typed: tuple[str, ...], action: str, looks: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The right PIN pays, a wrong one is asked for again, the third wrong one costs the card."""
    assert example("actions_and_loops").main(*typed) == action
    out = capsys.readouterr().out
    assert out.count(": wrong") + out.count(": right") == looks


def test_a_loop_without_an_end_is_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    """`max_steps` ends the machine that always asks again, and says so."""
    assert example("actions_and_loops").main("0", allowed=float("inf"), max_steps=9) == "endless"
    assert "9 steps" in capsys.readouterr().out


# Streams and threads.


def test_streaming_results(tmp_path: Path) -> None:
    """Both ways count the failures and retries known before; the lines are in input order."""
    path = tmp_path / "squares.jsonl"
    found = example("streaming_results").main(count=3000, path=path)
    assert found["stream"] == {
        "ok": 2997,
        "failed": 3,
        "retries": 300,
        "total": sum(range(3000)) - 999 - 1999 - 2999,
    }
    assert found["post_item"] == {"ok": 2997, "failed": 3, "retries": 300}
    lines = path.read_text().splitlines()
    assert lines[:2] == ['{"n": 0, "square": 0}', '{"n": 1, "square": 1}']
    assert lines[999] == '{"n": 999, "error": "999 is not accepted"}'
    assert len(lines) == 3000


def test_streaming_memory_is_flat(tmp_path: Path) -> None:
    """Ten times the items take no more memory, within 500 KB; a list of the results would take 3 MB."""
    module = example("streaming_results")
    peaks = []
    for count in (1000, 1000, 10_000):
        tracemalloc.start()
        module.main(count=count, path=tmp_path / "squares.jsonl")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 500_000, peaks


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_and_resumed(capfd: pytest.CaptureFixture[str]) -> None:
    """It ends whole; only what was in flight or not yet recorded at the kill is paid for twice."""
    module = example("killed_and_resumed")
    found = module.main(count=60)
    assert found["labels"] == 60 and found["codes"] == [-9, 130, 0, 0]
    assert 0 <= found["twice"] <= 2 * module.CONCURRENCY
    assert found["paid"][3] == found["paid"][4]
    assert capfd.readouterr().err.count("it goes on") == 3


def test_numpy_off_the_loop() -> None:
    """The values are the same on threads and on the loop."""
    found = example("numpy_off_the_loop").main(size=60)
    assert len(found["on threads"]["values"]) == 8
    assert found["on threads"]["values"] == pytest.approx(found["on the loop"]["values"], rel=1e-12)


def test_the_loop_ticks_while_threads_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work on threads that ends only once the metronome has ticked again does end."""
    module = example("numpy_off_the_loop")
    loop_thread, changed, ticks = threading.get_ident(), threading.Condition(), 0
    tick = module.Metronome._tick

    def ticking(metronome: Any) -> None:
        nonlocal ticks
        tick(metronome)
        with changed:
            ticks += 1
            changed.notify_all()

    def work(matrix: Any) -> float:
        if threading.get_ident() != loop_thread:
            with changed:
                seen = ticks
                assert changed.wait_for(lambda: ticks > seen, timeout=20)
        return 0.0

    monkeypatch.setattr(module.Metronome, "_tick", ticking)
    monkeypatch.setattr(module, "largest_singular_value", work)
    assert module.main(size=2)["on threads"]["ticks"] >= 4  # eight pieces, two at a time


def test_fetch_many() -> None:
    """Pages that were busy are asked again; pages that are not there are counted, with their error."""
    found = example("fetch_many").main(60)
    assert found["pages"] == 57 and found["links"] == 3 * 57
    assert found["errors"] == {"RequestRefusedError": 3}
    assert found["attempts"] == 60 + 12  # every fifth is busy once
