"""What a run has of given items, read beside the run and without opening it for writing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from asyncflow.durability.journal import nodes_of
from asyncflow.durability.keys import PlaceKeys
from asyncflow.durability.store import Record, RunRow, StoreReader

T = TypeVar("T")

#: Items in one question.
_AT_ONCE = 100


def read_back(
    reader: StoreReader,
    run: RunRow,
    path: tuple[str, ...],
    items: Iterable[T],
    *,
    key: Callable[[Any], Any] | None = None,
    visit: int = 0,
) -> Iterator[tuple[T, Record | None]]:
    """Each item with the record that a resumed run would find for it, or None; in the order of the items.

    A record of kind `AGAIN` says that somebody wants the item to run again: a resumed run will.

    Args:
        reader: Of the run's store. A process may be writing meanwhile; then later items are read later.
        run: The run.
        path: Of the node, as `amap` and `stream` have it: their function's name.
        items: As the run gets them: equal ones are told apart by their order. Read lazily.
        key: The function that the run was given, if it was.
        visit: How often the flow had come by before.

    Memory: a hundred items and their records.

    Raises:
        KeyNeededError, DuplicateKeyError: As the run itself.
        StoreError: If the store cannot be read.
    """
    keys = PlaceKeys(run.id, path, visit, key)
    since = json.loads(run.fingerprint).get("since", {}).get("/".join(nodes_of(path)), 0)
    source = iter(items)
    while group := [(item, keys.item(item)) for item in islice(source, _AT_ONCE)]:
        found = {
            record.key: record for _, record in reader.find([(keys.place, digest) for _, digest in group])
        }
        for item, digest in group:
            record = found.get(digest)
            yield item, record if record is not None and record.session > since else None
