"""Reading beside a run: the records of given items, and values as plain JSON."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest

from asyncflow import amap
from asyncflow.durability import Codec
from asyncflow.durability.plain import plain
from asyncflow.durability.readback import read_back
from asyncflow.durability.sqlstore import SQLStore


@dataclasses.dataclass
class Point:
    x: int
    at: datetime


class Colour(enum.Enum):
    RED = 1


class Model(pydantic.BaseModel):
    name: str
    size: int = 3


async def double(number: int) -> int:
    if number == 13:
        raise ValueError(number)
    return 2 * number


def kept(store: SQLStore, items: list[int]) -> list[Any]:
    reader = store.open_reader()
    try:
        run = reader.run("r")
        assert run is not None
        lazily: Iterator[int] = iter(items)
        found = read_back(reader, run, ("double",), lazily)
        return [(item, None if record is None else plain(record.data)) for item, record in found]
    finally:
        reader.close()


def test_records_are_found_in_the_order_of_the_items(tmp_path: Path) -> None:
    """Whatever order they finished in; equal items are told apart; new ones have none; failures are told."""
    store = SQLStore(tmp_path / "runs.db")
    go = amap(double, [5, 13, 5, *range(1000, 2200)], store=store, run_id="r", on_error="continue")
    asyncio.run(go)
    found = kept(store, [2000, 5, 7, 5, 5, 13, *range(1000, 1700)])
    assert found[:5] == [(2000, 4000), (5, 10), (7, None), (5, 10), (5, None)]
    assert found[5][1]["kind"] == "ValueError"
    assert found[6:] == [(n, 2 * n) for n in range(1000, 1700)]


def test_dropped_results_are_not_found(tmp_path: Path) -> None:
    """What `changed="drop"` has dropped is gone, until it has been run again."""
    store = SQLStore(tmp_path / "runs.db")
    asyncio.run(amap(double, [1, 2], store=store, run_id="r"))

    async def changed(number: int) -> int:
        return 3 * number

    changed.__name__ = "double"
    asyncio.run(amap(changed, [2], store=store, run_id="r", changed="drop"))
    assert kept(store, [1, 2]) == [(1, None), (2, 6)]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Point(1, datetime(2026, 1, 2, tzinfo=UTC)), {"x": 1, "at": "2026-01-02T00:00:00+00:00"}),
        (Model(name="a"), {"name": "a", "size": 3}),
        ([Colour.RED, {1, 2}, (3,), b"ab"], ["RED", [1, 2], [3], "YWI="]),
        ({1: "a", (1, 2): Decimal("1.50")}, {"1": "a", "[1, 2]": "1.50"}),
        (np.array([[1.5, 2.0]]), [[1.5, 2.0]]),
        (np.float32(0.5), 0.5),
        ([timedelta(minutes=1), 10**700, {"$tuple": 1}], [60.0, 10**700, {"$tuple": 1}]),
        ("a\ud800", "a\ud800"),
        (Path("a/b"), "a/b"),
        (1 + 2j, "(1+2j)"),
    ],
)
def test_values_are_shown_as_plain_json(value: Any, shown: Any) -> None:
    """Whatever the codec can record has a form for people and files that needs no class."""
    codec = Codec(Point | Model | Colour)
    assert plain(codec.encode(value)) == shown
