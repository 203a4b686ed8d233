"""What every store promises, over every implementation: the public suite, which is in `asyncflow.testing`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from asyncflow.durability import as_store
from asyncflow.durability.memory import MemoryStore
from asyncflow.durability.sqlstore import SQLStore
from asyncflow.durability.store import OK, PlaceRow, Record, Store
from asyncflow.testing import STORE_CHECKS
from asyncflow.testing.stores import groups_of_any_size_are_kept_whole


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore()
    return as_store(
        request.getfixturevalue("postgres_url") if request.param == "postgres" else tmp_path / "runs.db"
    )


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
def test_the_contract(store: Store, check: Callable[[Store], None]) -> None:
    """Each check's docstring says what it holds."""
    check(store)


@pytest.mark.parametrize("many", [1000, 1001])
def test_groups_of_any_size_are_kept_whole(store: Store, many: int) -> None:
    """More rows than one statement takes are one transaction, and questions of any size are answered."""
    groups_of_any_size_are_kept_whole(store, many)


def test_large_records_are_read_on_in_small_parts(tmp_path: Path) -> None:
    """A few megabytes at a time, or one record; by key, as many as were asked for."""
    store = SQLStore(tmp_path / "runs.db")
    writer = store.open_writer()
    run, session = writer.start("a", "name", "{}", 10.0)
    rows = [
        Record(run, 5, n.to_bytes(16, "big"), session, OK, 1, n, None, 1.0, 2.0, b"1" * 1_500_000, None)
        for n in range(8)
    ]
    writer.append([PlaceRow(5, run, ("n",), 0)], rows)
    reader = store.open_reader()
    seen, after = [], 0
    while found := reader.following(run, after, 100):
        assert len(found) <= 3
        seen += [each.position for _, each in found]
        after = found[-1][0]
    assert seen == list(range(8))
    assert len(reader.find([(5, row.key) for row in rows])) == 8
    reader.close()
    writer.close()
