"""The examples of `compute` run."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(120)
def test_digits():
    """98 % of the test digits, stopped and resumed, in turn and in parallel, with equal bits."""
    pytest.importorskip("sklearn")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / "digits.py"), "--check"],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "all runs have equal bits" in done.stdout


def test_training_sweep():
    """The pixels are centred, every setting learns, and runs in turn and at once have equal bits."""
    pytest.importorskip("sklearn")
    place = ROOT / "examples" / "training_sweep.py"
    spec = importlib.util.spec_from_file_location("example_training_sweep", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.main(epochs=3, concurrency=3)
    assert found["equal"] and abs(found["mean"]) < 1e-6
    assert len(found["accuracies"]) == 4 and min(found["accuracies"].values()) > 0.8
