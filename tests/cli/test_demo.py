"""`asyncflow demo` as a user starts it: what it writes, prints, asks and returns."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asyncflow.cli import main
from asyncflow.cli.demo import run_demo
from asyncflow.cli.translate import LANGUAGES, sections_of
from asyncflow.testing import SimulatedProvider, stand_in

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-W", "error", "-c", "from asyncflow.cli import main; main()", "demo"]
KEY = "sk-canary-0123456789abcdef"
DOCUMENT = "# One\n\nSome text.\n\n## Two\n\n```sh\n# no heading\n```\n"


def environment(**more: str) -> dict[str, str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    return mine | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "COLUMNS": "200"} | more


def demo(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=50,
        env=environment(**more),
    )


def make_document(folder: Path) -> Path:
    path = folder / "page.md"
    path.write_text(DOCUMENT, encoding="utf-8")
    return path


def make_resumes(parent: Path) -> Path:
    """Two résumés, of which the rules let one pass, and two that are none: another kind, a folder."""
    folder = parent / "resumes"
    folder.mkdir()
    (folder / "ada.txt").write_text("Name: Ada\nM.Sc. Mathematics\n8 years of Python, SQL and Linux\n")
    (folder / "bob.md").write_text("Name: Bob\n1 year of Python\n")
    (folder / "notes.pdf").write_bytes(b"%PDF")
    (folder / "old.txt").mkdir()
    return folder


@pytest.fixture
def document(tmp_path: Path) -> Path:
    return make_document(tmp_path)


@pytest.fixture
def resumes(tmp_path: Path) -> Path:
    return make_resumes(tmp_path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, int]:
    """One run without --model, though a key and an address are exported; its output, and calls made there."""
    folder = tmp_path_factory.mktemp("plain")
    output = folder / "out" / "deep"
    arguments = ("--file", make_document(folder), "--resumes", make_resumes(folder), "--output", output)
    with SimulatedProvider(latency=0) as provider:
        ran = demo(*arguments, OPENAI_API_KEY=KEY, OPENAI_BASE_URL=provider.base_url)
        return ran, output, len(provider.log)


def test_it_translates(plain: tuple[Any, Path, int]) -> None:
    """One file per language with every section in it, code as it was; exit code 0."""
    ran, output, _ = plain
    assert ran.returncode == 0, ran.stderr
    files = sorted((output / "translations").iterdir())
    assert [path.name for path in files] == sorted(f"README.{name.lower()}.md" for name in LANGUAGES)
    for language in LANGUAGES:
        text = (output / "translations" / f"README.{language.lower()}.md").read_text(encoding="utf-8")
        assert f"# [{language}] One" in text and f"## [{language}] Two" in text
        assert "```sh\n# no heading\n```" in text
        assert "not a translation" in text


def test_it_screens(plain: tuple[Any, Path, int]) -> None:
    """The summary is right, on the screen and in the file."""
    ran, output, _ = plain
    verdicts = json.loads((output / "screening.json").read_text(encoding="utf-8"))
    assert {one["file"]: one["qualifies"] for one in verdicts} == {"ada.txt": True, "bob.md": False}
    assert "Résumés: 2 judged" in ran.stdout and "1 qualify (50%): Ada" in ran.stdout


def test_it_prints_both_times(plain: tuple[Any, Path, int]) -> None:
    """Standard output has the calls, a row for each concurrency, and the speed-up that follows from both."""
    ran, _, _ = plain
    assert "2 sections into 8 languages, 16 calls" in ran.stdout
    rows = re.findall(r"│ +(1|64) │ +([\d.]+) │ +([\d,]+) │", ran.stdout)
    assert [row[0] for row in rows] == ["1", "64"]
    in_turn, at_once = (float(row[1]) for row in rows)
    speed_up = re.search(r"([\d.]+) times as fast", ran.stdout)
    assert speed_up and float(speed_up[1]) == pytest.approx(in_turn / at_once, rel=0.1)


def test_it_shows_progress(plain: tuple[Any, Path, int]) -> None:
    """Off a terminal standard error has one line for each program's end, with counts, rate and time."""
    done = [line for line in plain[0].stderr.splitlines() if line]
    assert [line.split(":")[0].split(" / ")[-1] for line in done] == [
        "in turn",
        "64 at once",
        "EvaluateResumes",
    ]
    assert all(re.search(r"(\d+)/\1 done, [\d,.]+/s, in \d+\.\d s$", line) for line in done)


def test_it_says_that_no_model_was_asked(plain: tuple[Any, Path, int]) -> None:
    """Before and after, standard output says that the replies are simulated."""
    lines = [line for line in plain[0].stdout.splitlines() if line.strip()]
    assert "simulated provider" in lines[0] and "no model" in lines[0]
    assert "no model was asked" in lines[-1]


def test_an_exported_key_alone_is_never_used(plain: tuple[Any, Path, int]) -> None:
    """A key and an address in the environment lead to no call, as long as no --model is given."""
    assert plain[2] == 0


def test_the_readme_and_twelve_resumes_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without options it takes asyncflow's README and résumés; --json is one object whose figures add up."""
    monkeypatch.setattr("asyncflow.cli.demo.LATENCY", 0.0)
    assert run_demo(file=None, resumes=None, output=tmp_path, model=None, concurrency=8, as_json=True) == 0
    captured = capsys.readouterr()
    figures = json.loads(captured.out)
    sections = sections_of((ROOT / "README.md").read_text(encoding="utf-8"))
    assert (figures["provider"], figures["model"]) == ("simulated", "simulated")
    assert figures["calls"] == 2 * 8 * len(sections) + 12
    screened = figures["screening"]
    assert (screened["judged"], screened["failed"]) == (12, 0)
    assert 0 < len(screened["qualified"]) < 12
    assert screened["share"] == len(screened["qualified"]) / 12
    assert len(figures["files"]) == 8 and all(Path(name).is_file() for name in figures["files"])
    assert figures["speed_up"] == pytest.approx(
        figures["seconds_in_turn"] / figures["seconds_at_once"], abs=0.2
    )
    assert figures["input_tokens"] > 0 and figures["output_tokens"] > 0
    assert "simulated provider" in captured.err


def test_json_of_the_command(tmp_path: Path, document: Path, resumes: Path) -> None:
    """With --json standard output is the JSON and nothing else; all other text goes to standard error."""
    with SimulatedProvider(latency=0) as provider:
        ran = demo(
            *("--json", "--model", "big-one", "--file", document, "--resumes", resumes),
            *("--output", tmp_path / "out"),
            OPENAI_BASE_URL=provider.base_url,
        )
        assert ran.returncode == 0, ran.stderr
        figures = json.loads(ran.stdout)
        assert (figures["provider"], figures["model"]) == (provider.base_url, "big-one")
        assert figures["calls"] == len(provider.log) == 34
    assert figures["screening"]["qualified"] == ["Ada"]
    assert "34 calls" in ran.stderr


def test_model_asks_what_it_announced(tmp_path: Path, document: Path, resumes: Path) -> None:
    """Provider, model and number of calls come first; then it makes exactly so many, of that model."""
    with SimulatedProvider(latency=0) as provider:
        ran = demo(
            *("--model", "big-one", "--file", document, "--resumes", resumes, "--output", tmp_path / "out"),
            OPENAI_API_KEY=KEY,
            OPENAI_BASE_URL=provider.base_url,
        )
        assert ran.returncode == 0, ran.stderr
        asked = list(provider.log)
    first = ran.stdout.splitlines()[0]
    assert "big-one" in first and provider.base_url in first and " 34 calls" in first
    assert len(asked) == 34
    assert {one.model for one in asked} == {"big-one"}
    assert "simulated" not in ran.stdout
    assert KEY not in ran.stdout + ran.stderr


def test_it_announces_before_it_asks(tmp_path: Path, document: Path, resumes: Path) -> None:
    """The announcement can be read while the first call is still without an answer."""
    may_answer = threading.Event()

    async def reply(asked: Any) -> str:
        await asyncio.to_thread(may_answer.wait, 30)
        return stand_in(asked)

    with SimulatedProvider(reply=reply, latency=0) as provider:
        child = started(
            *("--model", "big-one", "--file", document, "--resumes", resumes, "--output", tmp_path / "out"),
            OPENAI_BASE_URL=provider.base_url,
        )
        with child:
            assert child.stdout is not None
            first = child.stdout.readline()
            may_answer.set()
            _, errors = child.communicate(timeout=40)
    assert "34 calls" in first
    assert child.returncode == 0, errors


def test_a_dead_server(tmp_path: Path, document: Path, resumes: Path) -> None:
    """A server that is not there is named, with what could not be done; exit code 1, no traceback."""
    with SimulatedProvider() as provider:
        address = provider.base_url  # from here on nobody listens there
    ran = demo(
        *("--model", "big-one", "--file", document, "--resumes", resumes, "--output", tmp_path / "out"),
        OPENAI_API_KEY=KEY,
        OPENAI_BASE_URL=address,
    )
    assert ran.returncode == 1
    assert f"asyncflow demo: POST {address}/chat/completions: no connection" in ran.stderr
    assert "in turn, item 0" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert KEY not in ran.stdout + ran.stderr


def test_a_resume_that_cannot_be_judged(tmp_path: Path, document: Path, resumes: Path) -> None:
    """It is named with its error, the others are counted, and the exit code is 1."""

    def reply(asked: Any) -> str:
        return "I would rather not." if "Bob" in asked.prompt else stand_in(asked)

    output = tmp_path / "out"
    with SimulatedProvider(reply=reply, latency=0) as provider:
        ran = demo(
            *("--model", "big-one", "--file", document, "--resumes", resumes, "--output", output),
            OPENAI_BASE_URL=provider.base_url,
        )
        assert len(provider.log) == 34 + 2  # the third attempt at Bob is the last
    assert ran.returncode == 1, ran.stderr
    assert "1 judged" in ran.stdout and "failed: bob.md: " in ran.stdout
    verdicts = json.loads((output / "screening.json").read_text(encoding="utf-8"))
    assert [("error" in one) for one in verdicts] == [False, True]


# Bad input. These call the command's `main` in this process, which starts sooner; one does not.


@pytest.fixture
def here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """As `demo`, in this process: anything but a clean exit is raised."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["asyncflow", "demo", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        captured = capsys.readouterr()
        code = exit.value.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(sys.argv, code, captured.out, captured.err)

    return run


Here = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("text", ["", "\n \n\t\n"])
def test_an_empty_file(here: Here, text: str, tmp_path: Path) -> None:
    """Nothing to translate is said with the file's name; exit code 2, and nothing is written."""
    path = tmp_path / "empty.md"
    path.write_text(text)
    ran = here("--file", path, "--output", tmp_path / "out")
    assert ran.returncode == 2
    assert f"--file {path}: it is empty" in ran.stderr
    assert not (tmp_path / "out").exists()


def test_a_missing_file(tmp_path: Path) -> None:
    """A file that is not there is named; exit code 2."""
    ran = demo("--file", tmp_path / "none.md", "--output", tmp_path / "out")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"--file {tmp_path / 'none.md'}: No such file or directory; name a text file" in ran.stderr
    assert "Errno" not in ran.stderr and "Traceback" not in ran.stderr


@pytest.mark.parametrize("text", ["", "\n \n\t\n"])
def test_an_empty_resume(here: Here, text: str, tmp_path: Path, document: Path, resumes: Path) -> None:
    """It is named, before a call is made; exit code 2."""
    (resumes / "blank.txt").write_text(text)
    ran = here("--file", document, "--resumes", resumes, "--output", tmp_path / "out")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"--resumes {resumes / 'blank.txt'}: it is empty; " in ran.stderr
    assert "Traceback" not in ran.stderr and not (tmp_path / "out").exists()


def test_resumes_that_are_no_folder(here: Here, tmp_path: Path, document: Path) -> None:
    """The option is named, whether there is a file or nothing; exit code 2."""
    for path in (tmp_path / "nowhere", document):
        ran = here("--file", document, "--resumes", path, "--output", tmp_path / "out")
        assert (ran.returncode, ran.stdout) == (2, "")
        assert f"--resumes {path}: there is no such folder" in ran.stderr and "Errno" not in ran.stderr


def test_a_file_that_is_a_folder(here: Here, tmp_path: Path) -> None:
    """The option is named, with what to do; exit code 2."""
    ran = here("--file", tmp_path, "--output", tmp_path / "out")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"--file {tmp_path}: " in ran.stderr and "; name a text file" in ran.stderr
    assert "Errno" not in ran.stderr and not (tmp_path / "out").exists()


def test_a_file_that_is_no_text(here: Here, tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are an error that names the file; exit code 2."""
    path = tmp_path / "picture.md"
    path.write_bytes(b"\xff\xfe\x00\x01")
    ran = here("--file", path, "--output", tmp_path / "out")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"--file {path}: it is not UTF-8 text" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_resume_that_is_no_text(here: Here, tmp_path: Path, document: Path, resumes: Path) -> None:
    """It is named, before a call is made; exit code 2."""
    (resumes / "scan.txt").write_bytes(b"\xff\xfe\x00\x01")
    ran = here("--file", document, "--resumes", resumes, "--output", tmp_path / "out")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "scan.txt: it is not UTF-8 text" in ran.stderr
    assert "Traceback" not in ran.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_without_resumes(here: Here, made: bool, tmp_path: Path, document: Path) -> None:
    """An empty folder, or none, is named with what to do; exit code 2, and nothing is written."""
    folder = tmp_path / "nothing"
    if made:
        folder.mkdir()
        (folder / "scan.pdf").write_bytes(b"%PDF")
    ran = here("--file", document, "--resumes", folder, "--output", tmp_path / "out")
    assert ran.returncode == 2
    assert str(folder) in ran.stderr and "Traceback" not in ran.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("below", [(), ("deep",)])
def test_an_output_that_is_a_file(here: Here, below: tuple[str, ...], document: Path) -> None:
    """The option is named, with what to do, for the file itself and for a folder below it; exit code 2."""
    output = document.joinpath(*below)
    ran = here("--file", document, "--output", output)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"--output {output}: no folder can be made there (" in ran.stderr
    assert "name a folder" in ran.stderr
    assert "Errno" not in ran.stderr and "Traceback" not in ran.stderr


@pytest.mark.parametrize("arguments", [("--concurrency", "0"), ("--wrong",), ("stray",)])
def test_wrong_usage(here: Here, arguments: tuple[str, ...]) -> None:
    """An unknown or impossible option is exit code 2, with a hint and no traceback."""
    ran = here(*arguments)
    assert ran.returncode == 2
    assert "--help" in ran.stderr and "Traceback" not in ran.stderr


def test_model_without_a_key_or_address(here: Here, document: Path, tmp_path: Path) -> None:
    """Nothing to ask with is said in one line, with what to do, before anything is asked; exit code 2."""
    ran = here("--model", "big-one", "--file", document, "--output", tmp_path / "out")
    assert ran.returncode == 2
    assert "OPENAI_API_KEY" in ran.stderr
    assert "Traceback" not in ran.stderr


# Signals.


def started(*arguments: str | Path, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment(**more),
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there are no POSIX terminals")
def test_on_a_terminal(tmp_path: Path, document: Path, resumes: Path) -> None:
    """On a terminal of 80 columns each program has a bar with counts and rate, and time left on the way."""
    ours, theirs = os.openpty()
    with SimulatedProvider(latency=0.05) as provider:
        child = subprocess.Popen(
            [*COMMAND, "--model", "any", *map(str, ("--file", document, "--resumes", resumes))]
            + ["--output", str(tmp_path / "out")],
            stdout=theirs,
            stderr=theirs,
            env=environment(
                OPENAI_BASE_URL=provider.base_url, COLUMNS="80", LINES="25", TERM="xterm-256color"
            ),
        )
        os.close(theirs)
        with child, open(ours, "rb", buffering=0) as terminal:
            written = _all_of(terminal)
    assert child.returncode == 0, written
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", written)
    for name, count in (("in turn", 16), ("64 at once", 16), ("EvaluateResumes", 2)):
        assert re.search(rf"{name} +━{{10,}} +{count}/{count} +[\d,.]+/s +in \d+\.\d s", text), name
    assert re.search(r"in turn +[━╸╺]{10,} +\d+/16 +[\d.]+/s \d+ s left +1 running", text)
    assert max(len(line) for line in re.split(r"[\r\n]+", text) if "━" in line) <= 80
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")  # the cursor is back


def _all_of(terminal: Any) -> str:
    parts = []
    try:
        while part := terminal.read(65536):
            parts.append(part)
    except OSError:  # how Linux says that the other end is closed
        pass
    return b"".join(parts).decode()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no POSIX signals")
@pytest.mark.parametrize("at_call", [1, 20])
def test_ctrl_c(at_call: int, tmp_path: Path, document: Path, resumes: Path) -> None:
    """Ctrl-C in the middle of a call, in turn or at once, ends it soon: exit code 130, no traceback."""
    asked = threading.Event()

    async def reply(one: Any) -> str:
        if one.index + 1 < at_call:
            return stand_in(one)
        asked.set()
        await asyncio.Event().wait()  # never answered
        return ""

    with SimulatedProvider(reply=reply, latency=0) as provider:
        child = started(
            *("--model", "slow", "--file", document, "--resumes", resumes, "--output", tmp_path / "out"),
            OPENAI_BASE_URL=provider.base_url,
        )
        with child:
            assert asked.wait(30)
            child.send_signal(signal.SIGINT)
            out, errors = child.communicate(timeout=20)
    assert child.returncode == 130, errors
    assert "Traceback" not in out + errors
    assert errors.splitlines()[-1] == "stopped"
