"""Examples run: the doctests of every module, and every Python block of the documents, page by page."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import socket
import sys
from pathlib import Path
from types import ModuleType

import pytest

import asyncflow

ROOT = Path(__file__).resolve().parent.parent
PAGES = [path for path in (ROOT / "README.md",) if path.exists()] + sorted((ROOT / "docs").rglob("*.md"))
MODULES = sorted(
    {"asyncflow", *(module.name for module in pkgutil.walk_packages(asyncflow.__path__, "asyncflow."))}
)
BLOCK = re.compile(r"^```python[^\n]*\n(.*?)^```", re.M | re.S)


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """Nothing but this machine can be reached, no key is set; files land in a folder of the test's."""
    connect = socket.socket.connect

    def local(self, address):
        assert not isinstance(address, tuple) or address[0] in ("127.0.0.1", "::1", "localhost"), address
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_docstrings(name):
    """Every example in a docstring gives what it says."""
    if "numba_kernels." in name:
        pytest.importorskip("numba")  # an extra
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def blocks(page):
    """The Python blocks of a page, each at its own line of a text as long as the page."""
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        yield "\n" * text[: found.start(1)].count("\n") + found[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages(page, monkeypatch):
    """Every Python block of a page runs, in order, in one namespace."""
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    for source in blocks(page):
        assert "# not run" not in source, "a block that is shown is a block that runs"
        exec(compile(source, str(page), "exec", dont_inherit=True), module.__dict__)


def test_the_migration_pages_are_there():
    """And hold code: a pattern that finds no blocks would pass over all of them."""
    for name in ("migration/from-pocketflow.md", "migration/from-asyncio-gather.md", "howto/testing.md"):
        assert list(blocks(ROOT / "docs" / name)), name
