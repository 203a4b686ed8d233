"""Examples in the docstrings of http, llm and testing run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import asyncflow


def modules() -> list[str]:
    return [
        found.name
        for room in ("http", "llm", "testing")
        for found in pkgutil.walk_packages([f"{asyncflow.__path__[0]}/{room}"], f"asyncflow.{room}.")
    ]


@pytest.mark.parametrize("name", modules())
def test_examples_run(name: str) -> None:
    """Every example gives what it says."""
    assert doctest.testmod(importlib.import_module(name)).failed == 0
