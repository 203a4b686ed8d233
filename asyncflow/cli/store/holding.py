"""Being the one process that writes to a store, from the checks before the first call to the last line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from asyncflow.durability import writer
from asyncflow.durability.store import Store


@contextmanager
def holding(store: Store) -> Iterator[None]:
    """Hold it for the block, made if it is not there; runs within the block share the hold.

    Raises:
        StoreLockedError: If another process holds it.
        StoreError: If it cannot be written to.
    """
    held = writer.share(store)
    try:
        yield
    finally:
        writer.unshare(store, held)
