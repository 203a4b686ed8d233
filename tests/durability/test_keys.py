"""Items are known again, and only they."""

from __future__ import annotations

import enum
import math
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncflow.durability.keys import PlaceKeys, canonical
from asyncflow.durability.seen import Seen
from asyncflow.errors import DuplicateKeyError, KeyNeededError


class Kind(enum.Enum):
    A = 1


class Row(NamedTuple):
    a: int


@dataclass
class Item:
    a: int


DIFFERENT = [
    None,
    True,
    False,
    1,
    0,
    1.0,
    "1",
    "True",
    "None",
    "",
    b"1",
    [1],
    (1,),
    {1},
    frozenset({1}),
    {"1": 1},
    {1: 1},
    [[1]],
    [1, 1],
    [11],
    ["1"],
    [None],
    [],
    (),
    {},
    set(),
    math.nan,
    math.inf,
    -0.0,
    1e300,
    10**400,
    -(10**400),
    complex(1),
    date(2026, 1, 1),
    datetime(2026, 1, 1),
    datetime(2026, 1, 1, tzinfo=UTC),
    timedelta(1),
    Decimal(1),
    Decimal("1.0"),
    UUID(int=1),
    Kind.A,
    Row(1),
    Item(1),
    Path("1"),
    range(1),
    np.array([1]),
    np.array([1.0]),
    np.array([[1]]),
    np.int8(1),
    np.float64(1),
    {"a": 1, "b": 2},
    {"a": 2, "b": 1},
    "\ud800",
    "a,b",
    ["a", "b"],
    ["a,b"],
    {"a": {"b": 1}},
    bytearray(b"1"),
]


def keys(key: Any = None, run: str = "r", path: tuple[str, ...] = ("n",), visit: int = 0) -> PlaceKeys:
    return PlaceKeys(run, path, visit, key)


def test_different_content_has_different_keys() -> None:
    """Type and value count: 1, True, 1.0, "1" and np.int8(1) are five items."""
    texts = [canonical(value) for value in DIFFERENT]
    assert len(set(texts)) == len(DIFFERENT)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.text(max_size=3), st.integers() | st.sets(st.text(max_size=2)), max_size=6),
    st.randoms(),
)
def test_order_of_dicts_and_sets_does_not_count(value: dict[str, Any], random: Any) -> None:
    """Equal dicts are one item, however they were filled."""
    pairs = list(value.items())
    random.shuffle(pairs)
    assert canonical(dict(pairs)) == canonical(value)


def test_keys_are_the_same_in_every_process() -> None:
    """Not even the hash seed changes them."""
    program = (
        "from asyncflow.durability.keys import PlaceKeys\n"
        "k = PlaceKeys('r', ('a', 'b'), 1, None)\n"
        "print(k.item({'x': {'p', 'q', 'r'}, 'y': [1.5, None]}).hex(), k.place)"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_run_path_and_visit_tell_places_apart() -> None:
    """The same item elsewhere is another item; ("a", "b") is not ("a/b",)."""
    places = [
        keys(),
        keys(run="s"),
        keys(path=("n", "m")),
        keys(path=("n/m",)),
        keys(path=("n, m",)),
        keys(visit=1),
    ]
    assert len({place.item("x") for place in places}) == len({place.place for place in places}) == 6
    assert all(0 <= place.place < 2**63 for place in places)


def test_equal_items_are_counted_and_others_do_not_move() -> None:
    """The second "a" is always the second, whatever was put before, between or after."""
    first = keys()
    a1, b, a2 = first.item("a"), first.item("b"), first.item("a")
    again = keys()
    assert [again.item(x) for x in ("new", "a", "c", "a", "b")][1::2] == [a1, a2]
    assert again.item("a") not in {a1, b, a2}


def test_a_plain_nodes_key_is_what_prep_returned() -> None:
    """The same twice, another for other content; the action's key is neither."""
    place = keys()
    assert place.single([1]) == place.single([1]) != place.single([2])
    assert len(place.action()) == 16 and place.action() not in {place.single(None), place.single("action")}


def test_a_users_key_is_the_identity() -> None:
    """The content may change; a second item of the same key is refused, with its key and the node."""
    place, other = keys(lambda item: item["id"]), keys(lambda item: item["id"])
    assert place.item({"id": 7, "t": 1}) == other.item({"id": 7, "t": 2})
    with pytest.raises(DuplicateKeyError, match=r"n: the key 7 came twice"):
        place.item({"id": 7})


@pytest.mark.parametrize("key", [None, lambda item: object()], ids=["content", "user's key"])
def test_what_has_no_content_needs_a_key(key: Any) -> None:
    """The error names node, type and item, and says what to do."""
    with pytest.raises(KeyNeededError, match=r"(?s)n: .*builtins.object.*key"):
        keys(key).item({"client": object()})
    cycle: list[Any] = []
    cycle.append(cycle)
    if key is None:
        with pytest.raises(KeyNeededError, match="itself"):
            keys().item(cycle)


def test_seen_counts_like_a_dict_and_takes_a_tenth() -> None:
    """Through the change from dict to tables, repeated or not; 20 bytes a digest or less."""
    import random
    import tracemalloc
    from collections import Counter

    draw = random.Random(1)
    digests = [draw.randrange(20_000).to_bytes(2, "big") * 8 for _ in range(6000)]
    seen, counts = Seen(), Counter[bytes]()
    for digest in digests:
        counts[digest] += 1
        assert seen.add(digest) == counts[digest]
    many = Seen()
    tracemalloc.start()
    for _ in range(60_000):
        many.add(draw.randbytes(16))
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert size / 60_000 < 40


def test_tables_are_known_by_their_content() -> None:
    """What `read_csv(chunksize=…)` gives is an item: names, types, rows and index count, and nothing else."""
    table = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    others = [
        table.rename(columns={"a": "c"}),
        table.astype({"a": float}),
        table.iloc[::-1],
        table.set_index([[5, 6]]),
        table[["b", "a"]],
        table.assign(a=[1, 3]),
        table["a"],
        table["a"].rename("c"),
        pd.DataFrame(np.eye(2), columns=["a", "a"]),
    ]
    texts = [canonical(one) for one in [table, *others]]
    assert len(set(texts)) == len(texts) and canonical(table.copy()) == texts[0]
    with pytest.raises(KeyNeededError, match=r"(?s)DataFrame of objects, .*: key=, .* a node's method"):
        keys().item(pd.DataFrame({"a": [[1], [2]]}))


def test_a_key_that_raises_names_the_item() -> None:
    """The user's own exception, with a note."""
    with pytest.raises(KeyError) as raised:
        keys(lambda item: item["id"]).item({"name": "a"})
    assert raised.value.__notes__ == ["asyncflow: n: raised by key, for the item {'name': 'a'}"]
