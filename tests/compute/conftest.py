"""What the tests of `compute` share: measures of error, the oracle, and a line when it is not there."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

HAS_TORCH = importlib.util.find_spec("torch") is not None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not HAS_TORCH:
        terminalreporter.write_line(
            "PyTorch is NOT installed: the oracle tests of compute did not run", red=True
        )


@pytest.fixture(params=["numpy", "numba"])
def kernel(request: pytest.FixtureRequest):
    """Run the test inside `kernels(...)`, once per kind of loop."""
    from asyncflow.compute import kernels

    if request.param == "numba":
        pytest.importorskip("numba")
    with kernels(request.param):
        yield request.param


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20260101)
