"""Examples in the docstrings of policy run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import asyncflow.policy


@pytest.mark.parametrize(
    "name", [m.name for m in pkgutil.iter_modules(asyncflow.policy.__path__, "asyncflow.policy.")]
)
def test_examples_run(name: str) -> None:
    """Every example gives what it says."""
    assert doctest.testmod(importlib.import_module(name)).failed == 0
