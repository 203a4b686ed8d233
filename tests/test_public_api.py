"""What `asyncflow` offers, exactly; and what importing it costs."""

from __future__ import annotations

import runpy
import subprocess
import sys
from importlib.metadata import version

import pytest

import asyncflow

PUBLIC = """
AsyncBatchFlow AsyncBatchNode AsyncFlow AsyncNode AsyncParallelBatchFlow AsyncParallelBatchNode BaseNode
BatchFlow BatchNode Failed Flow Node Ok Problem Retry RunResult Skipped Stop amap check run run_sync
stop_on_signals stream waiting
""".split()


def test_the_list_is_exact() -> None:
    """Nothing is added or taken away by accident, and everything in the list has a docstring."""
    assert sorted(asyncflow.__all__) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(asyncflow, name).__doc__, name


def test_importing_it_loads_no_heavy_library() -> None:
    """`import asyncflow` needs neither pandas nor aiohttp, SQLAlchemy, httpx, typer, rich or trio, and
    what keeps stored runs only where a store is given."""
    heavy = "pandas aiohttp sqlalchemy httpx typer rich trio numpy pydantic asyncflow.durability".split()
    program = f"import sys, asyncflow; print([name for name in {heavy!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr


def test_the_version_is_that_of_the_installation(capsys: pytest.CaptureFixture[str]) -> None:
    """In the package and on the command line; any other name is an AttributeError as ever."""
    assert asyncflow.__version__ == version("asyncflow-engine")
    with pytest.raises(SystemExit) as ended, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["asyncflow", "--version"])
        runpy.run_module("asyncflow", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"asyncflow {asyncflow.__version__}\n"
    with pytest.raises(AttributeError, match="no attribute 'amapp'"):
        asyncflow.amapp
