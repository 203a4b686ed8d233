"""The promise of a durable run, as the engine knows it: result, commit, then visible.

The engine asks a journal before it calls `exec`, and tells it what came back; nothing that depends on a
result (the list, the stream, `post_item`, progress) sees it before it is committed. What a record is, how it
is keyed and where it lies is the journal's business: `durability` keeps this promise, and the engine imports
nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias

from asyncflow.engine.tasks import Host
from asyncflow.outcome import Failed, Ok, Outcome, Spent

#: Seconds that items in flight have to end in, after a failure that stops the call: they are paid for.
GRACE = 30.0

#: Told on the host's thread: None once the outcome is durable, or why it never will be.
Committed: TypeAlias = Callable[[BaseException | None], None]


#: What to do where the program has changed: refuse, keep all results, or drop those of the changed nodes.
Changed: TypeAlias = Literal["refuse", "keep", "drop"]

#: Whether items that failed run again, stay failed, or are the only ones that run.
RetryFailed: TypeAlias = bool | Literal["only"]

#: What is to become of an item that was in flight when earlier processes died: it runs like any other, it
#: runs with nothing else in flight, or it is not run.
Verdict: TypeAlias = Literal["run", "alone", "quarantine"]


class Place(Protocol):
    """Where one node keeps its items, in one visit: a node's path, the parameters of the batch-flow runs
    around it, and how often the flow has come by."""

    @property
    def has_records(self) -> bool:
        """Whether an earlier process recorded anything here; if not, nobody needs to ask."""

    def key_of(self, item: Any) -> bytes:
        """The identity of the next item: its key or its content, and how often that came before.

        Called once per item, in input order.

        Raises:
            KeyNeededError: If the item has no key and its content cannot be digested.
            DuplicateKeyError: If the user's key came before.
        """

    def key_of_single(self, prep_res: Any) -> bytes:
        """The identity of a plain node's one item: the visit itself, and what `prep` returned."""

    async def recall(self, key: bytes) -> Outcome[Any] | None:
        """What an earlier process committed for this item and still holds; None: it has to run.

        The record's `value` and `attempts` are set; `index` and `item` are the caller's to set. A `Skipped`:
        this run leaves the item out.
        """

    def begin(self, key: bytes) -> None:
        """An attempt at this item is about to start: if the process dies now, the item was in flight."""

    def rests(self, key: bytes) -> None:
        """An item that was begun only waits for now: if the process dies, that is not its doing."""

    def goes_on(self, key: bytes) -> None:
        """An item that rests is in flight again. One that has ended meanwhile is not."""

    def verdict(self, key: bytes) -> Verdict:
        """What earlier deaths of the process say about this item."""

    def withdraw(self, key: bytes) -> None:
        """An item that was begun is given up without an outcome."""

    def commit(
        self,
        key: bytes,
        outcome: Ok[Any] | Failed,
        committed: Committed,
        spent: Spent | None = None,
    ) -> None:
        """Record an outcome, and what it has cost where that was told. Never waits; `committed` is called
        when it is durable.

        Raises:
            NotStorableError: If the value cannot be written or could not be read back.
        """

    def leave(self) -> None:
        """No attempt runs here any more: items that were begun and have no outcome were cancelled."""

    def acted(self, action: Any) -> None:
        """The node's `post` has returned this action.

        Raises:
            ResumeMismatchError: If all its items were recalled and the recorded action is another one.
        """


class Journal(Protocol):
    """One run's memory.

    Attributes:
        run_id: What the run is called.
        found: What an earlier process left, in words; None: the run begins now.
        suspects: How many items are to run alone, or not at all, and have no outcome yet.
        asked: At the end of a run that was resumed: how many of its items were not recorded before, and how
            many that were recorded it no longer has; else None.
    """

    @property
    def run_id(self) -> str: ...
    @property
    def found(self) -> str | None: ...
    @property
    def suspects(self) -> int: ...
    @property
    def asked(self) -> tuple[int, int] | None: ...

    def place(
        self,
        path: tuple[str, ...],
        visit: int,
        host: Host,
        *,
        key: Callable[[Any], Any] | None,
        result_type: Any,
    ) -> Place:
        """The place of a node.

        Args:
            path: Names from the outermost flow to the node; a run of a batch flow adds its parameters.
            visit: How often this node was reached before in the same run of its flow.
            host: Where `committed` is to be called.
            key: The user's function from an item to its key, or None: the content is the key.
            result_type: The declared type of results, or None: what JSON gives back.
        """
