"""Imports point down: the table of rooms in the design document, held by a test."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "asyncflow"

WORDS = ("errors", "outcome", "events", "clock", "waiting")

#: Room -> rooms it may import, lowest first. A dotted name is one module of a room.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "errors": (),
    "outcome": ("errors",),
    "events": ("outcome",),
    "clock": (),
    "waiting": (),
    "threads": ("errors", "clock"),
    "policy": WORDS,
    "engine": (*WORDS, "threads", "policy"),
    "graph": (*WORDS, "threads", "policy", "engine"),
    "durability": (*WORDS, "threads", "engine.journal", "graph.outline"),
    "http": (*WORDS, "policy"),
    "llm": (*WORDS, "policy", "http", "durability.responses"),
    "compute": ("errors", "clock", "threads"),
    "observe": WORDS,
    "api": (*WORDS, "policy", "engine", "graph", "durability", "observe"),
    "testing": (*WORDS, "engine", "http", "llm", "durability"),
    "cli": ("*",),
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(module: str) -> str:
    return module.split(".")[0]


def imported(path: Path) -> set[str]:
    """Names below `asyncflow` that a file imports: at the top, inside functions, relative, type-only."""
    package = ("asyncflow", *path.relative_to(PACKAGE).parent.parts)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                whole = (*base, alias.name)
                is_module = (PACKAGE.parent / Path(*whole)).exists() or (
                    PACKAGE.parent / Path(*whole).with_suffix(".py")
                ).exists()
                found.add(".".join(whole if is_module else base))
    return {name.removeprefix("asyncflow.") for name in found if name.startswith("asyncflow.")}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    """A file imports its own room and the rooms that the table allows, nothing else."""
    relative = path.relative_to(PACKAGE)
    if relative in (Path("__init__.py"), Path("__main__.py")):
        return  # the doors: everything may be behind them
    room = relative.parts[0].removesuffix(".py")
    assert room in MAY_IMPORT, f"{relative}: the room {room!r} is not in the table"
    allowed = MAY_IMPORT[room]
    if "*" in allowed:
        return
    for name in imported(path):
        if room_of(name) == room:
            continue
        fits = any(name == rule or name.startswith(rule + ".") for rule in allowed)
        assert fits, f"{relative} imports asyncflow.{name}, which lies above {room}"


def test_only_http_imports_httpx() -> None:
    """httpx is used behind one door."""
    for path in modules():
        if path.relative_to(PACKAGE).parts[0] == "http":
            continue
        names = {
            alias.name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Import)
            for alias in node.names
        } | {
            (node.module or "").split(".")[0]
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and not node.level
        }
        assert "httpx" not in names, path
