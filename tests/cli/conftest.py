"""What the tests of `asyncflow map` and `simulate` share: the command in this process, and as a child."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncflow.cli import main
from asyncflow.policy.retry import Retry
from asyncflow.testing import Asked, SimulatedProvider

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-W", "error", "-c", "from asyncflow.cli import main; main()"]
Ran = subprocess.CompletedProcess[str]
Here = Callable[..., Ran]


def environment(**more: str) -> dict[str, str]:
    """This process's environment without anything that names a provider."""
    mine = {
        name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "ANTHROPIC_"))
    }
    return mine | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "COLUMNS": "200"} | more


@pytest.fixture
def child() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command as a process of its own; none is left behind."""
    children: list[subprocess.Popen[str]] = []

    def start(*arguments: str | Path, **more: str) -> subprocess.Popen[str]:
        one = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment(**more),
        )
        children.append(one)
        return one

    yield start
    for one in children:
        with one:
            one.kill()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Here:
    """`asyncflow …` in this process and in the test's folder: anything but a clean exit is raised."""
    for name in [name for name in os.environ if name.startswith(("OPENAI_", "ANTHROPIC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("asyncflow.cli.map.client.LATENCY", 0.0)
    monkeypatch.setattr("asyncflow.cli.map.client.RETRY", Retry(wait=0.0))

    def run(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["asyncflow", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        captured = capsys.readouterr()
        code = exit.value.code
        assert isinstance(code, int)
        assert "Traceback" not in captured.out + captured.err
        return Ran(sys.argv, code, captured.out, captured.err)

    return run


@pytest.fixture
def provider() -> Iterator[SimulatedProvider]:
    """A provider that answers at once, with the prompt in capitals."""
    with SimulatedProvider(reply=shout, latency=0) as one:
        yield one


@pytest.fixture
def ask(here: Here, provider: SimulatedProvider) -> Here:
    """`asyncflow map` of that provider."""

    def run(*arguments: str | Path) -> Ran:
        return here("map", "--model", "m", "--base-url", provider.base_url, *arguments)

    return run


def shout(asked: Asked) -> str:
    return asked.prompt.upper()


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows into `in.jsonl`."""

    def write(*values: Any, name: str = "in.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(one) + "\n" for one in values), encoding="utf-8")
        return path

    return write


@pytest.fixture
def read() -> Callable[[Path], list[Any]]:
    """The objects of a file of JSON lines."""
    return lambda path: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
