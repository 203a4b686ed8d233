"""Which format a file has, by its suffix, and what a cell of a column may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asyncflow.cli.tables.values import as_text
from asyncflow.cli.usage import UsageError

SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")


def kind_of(path: Path) -> str:
    """`"jsonl"`, `"csv"` or `"parquet"`, by the suffix.

    Raises:
        UsageError: If it is none of those.

    Example:
        >>> kind_of(Path("a.TSV"))
        'csv'
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{path}: its name must end in {', '.join(SUFFIXES)}, which says what it holds")
    return {".ndjson": "jsonl", ".tsv": "csv"}.get(suffix, suffix[1:])


def delimiter_of(path: Path, given: str | None = None) -> str:
    """What stands between two cells."""
    return given or ("\t" if path.suffix.lower() == ".tsv" else ",")


def arrow(path: Path) -> Any:
    """The module `pyarrow`.

    Raises:
        UsageError: If it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as exc:
        raise UsageError(f"{path}: Parquet needs pyarrow: pip install 'asyncflow-engine[parquet]'") from exc
    return pyarrow


def cell(value: Any, kind: str) -> Any:
    """A value as a column of that kind holds it; None where it is of another.

    Raises:
        OverflowError: If it is a whole number with more digits than such a column holds.

    Example:
        >>> cell(3.0, "int"), cell(3, "float"), cell([1], "json"), cell("3", "int")
        (3, 3.0, '[1]', None)
    """
    if value is None:
        return None
    if kind in ("text", "json"):
        return as_text(value)
    if isinstance(value, str) or isinstance(value, bool) != (kind == "bool"):
        return None
    if kind == "bool":
        return value
    held = int(value) if kind == "int" else float(value)
    if isinstance(value, int) and (held != value or (kind == "int" and not -(2**63) <= held < 2**63)):
        raise OverflowError(f"{value} has more digits than a column of kind {kind!r} holds")
    return held
