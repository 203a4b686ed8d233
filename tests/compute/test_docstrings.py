"""Every example in the docstrings of `compute` runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import asyncflow.compute

MODULES = sorted(
    m.name
    for m in pkgutil.walk_packages(asyncflow.compute.__path__, "asyncflow.compute.")
    if "numba" not in m.name
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    """The examples of one module."""
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs={"np": np})
    assert result.failed == 0
