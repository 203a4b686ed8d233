"""Where runs are kept: the port that the journal speaks to, and the records that pass through it.

A `Store` hands out a `StoreWriter` under a lock that is taken back from a dead process, and any number of
`StoreReader`s. A run has one writer at a time; where runs share a file, so does the file. All calls block and
are made on threads. Records are only ever added; a later session's record of the same key stands in the place
of an earlier one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from asyncflow.durability.marks import Mark, Marks
from asyncflow.errors import StoreError
from asyncflow.outcome import Spent

#: What a record is of: an item's result, its failure, the action that a `post` returned, or that somebody
#: wants the item to run again, whatever became of it before.
OK, FAILED, ACTION, AGAIN = 0, 1, 2, 3

#: How a session ended that nobody has closed; written by the next opening.
INTERRUPTED = "interrupted"


class Record(NamedTuple):
    """One fact about one item, as it is stored.

    Attributes:
        run, place, key: Whose: the run's number, the place's, and the item's key there.
        session: The opening of the run that recorded it; of two records of a key the later session's counts.
        kind: `OK`, `FAILED`, `ACTION` or `AGAIN`.
        attempts: How many it took.
        position: The item's index in the input of that session.
        label: The user's key as text, or None.
        began, at: When its first attempt of the session began and when it was over, in seconds since 1970.
        data: The result, or the error, as the codec wrote it.
        usage: Tokens and cost of the result as JSON, where it told them.
    """

    run: int
    place: int
    key: bytes
    session: int
    kind: int
    attempts: int
    position: int
    label: str | None
    began: float
    at: float
    data: bytes
    usage: str | None


class Answer(NamedTuple):
    """What a cache keeps under a key.

    Attributes:
        key: A digest.
        at: When it was kept, in seconds since 1970.
        expires: When it ceases to count, or None.
        data: UTF-8 without NUL.
    """

    key: bytes
    at: float
    expires: float | None
    data: bytes


class PlaceRow(NamedTuple):
    """The path and visit behind a place's number."""

    id: int
    run: int
    path: tuple[str, ...]
    visit: int


class Death(NamedTuple):
    """An item was in flight when the process of a session died; `alone`: nothing else was."""

    place: int
    key: bytes
    session: int
    alone: bool


@dataclass(frozen=True, slots=True)
class Session:
    """One opening of a run.

    Attributes:
        started, ended: Seconds since 1970; `ended` is None while it is open, and for ever if it was killed.
        how: `"finished"`, `"failed"`, `"stopped"` (it was asked to, and let its items end), `"cancelled"`,
            `"interrupted"` (the process died), or None: nobody has closed it yet.
        pid, host: Which process it was, and where; None where that was not recorded.
    """

    number: int
    started: float
    ended: float | None
    how: str | None
    pid: int | None = None
    host: str | None = None


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as the store knows it.

    Attributes:
        number: What its records call it.
        fingerprint: Text of the program's last accepted fingerprint.
        sessions: Its openings, oldest first.
    """

    number: int
    id: str
    name: str
    created: float
    fingerprint: str
    sessions: tuple[Session, ...]


@dataclass(frozen=True, slots=True)
class PlaceCount:
    """How many items of a place have a result, how many a failure that nothing replaced, and how many are
    wanted again."""

    path: tuple[str, ...]
    visit: int
    done: int
    failed: int
    again: int = 0


class RunLostError(StoreError):
    """A run is another process's by now: nothing more of this session of it is written. Other runs go on.

    Attributes:
        session: Whose records are refused.
    """

    def __init__(self, message: str = "", *, session: int = 0) -> None:
        super().__init__(message)
        self.session = session


class StoreWriter(Protocol):
    """The one writer in this process. Every method is a transaction, and durable when it returns."""

    @property
    def marks(self) -> Marks:
        """Where items in flight are marked."""

    def start(self, run_id: str, name: str, fingerprint: str, now: float) -> tuple[int, int]:
        """Open a run, made if it is new, with this fingerprint. Returns its and the session's number.

        Sessions of it that a dead process left open are closed as interrupted.

        Raises:
            StoreLockedError: If another process writes to this run.
        """

    def end(self, session: int, how: str, now: float) -> None:
        """Close a session.

        Raises:
            RunLostError: If it was lost; nothing is left of it here either way.
        """

    def append(self, places: Sequence[PlaceRow], records: Sequence[Record]) -> None:
        """Add all or none. What is there already (same key, same session) stays: repeating is safe.

        Raises:
            RunLostError: If records are of a session that is lost.
        """

    def bury(self, marks: Sequence[Mark]) -> None:
        """Add a death for each of these items that has no record of its session."""

    def remove(self, run: int) -> None:
        """Delete a run and all that belongs to it.

        Raises:
            StoreLockedError: If it is at work.
        """

    def prepare_answers(self) -> None:
        """Make room for answers, if there is none yet."""

    def keep_answers(self, answers: Sequence[Answer], most: int | None = None) -> None:
        """Keep these, in the place of what was there under the same keys. No two have one key.

        Where `most` is given, no more than that many are left; those of earlier calls go first.
        """

    def drop_answers(self, now: float | None = None) -> None:
        """Delete the answers that have expired by `now`; None: all."""

    def compact(self) -> tuple[int, int]:
        """Give back the space of what was deleted. Returns the store's size in bytes before and after."""

    def retryable(self, error: BaseException) -> bool:
        """Whether repeating what raised `error` may succeed, safely: a full disk yes, a damaged file no."""

    def close(self, *, clean: bool = True) -> None:
        """Close and give the lock back; unless `clean`, the next opening checks what is there."""

    def abandon(self) -> None:
        """In a forked child: keep hands off what belongs to the parent."""


class StoreReader(Protocol):
    """Reads what is committed. Used by one thread at a time."""

    def snapshot(self) -> AbstractContextManager[None]:
        """Within the block all is read as it is at the first question, whatever is committed meanwhile."""

    def runs(self) -> list[RunRow]:
        """All runs, oldest first."""

    def run(self, run_id: str) -> RunRow | None: ...
    def find(self, keys: Sequence[tuple[int, bytes]]) -> list[tuple[int, Record]]:
        """The records that count for these (place, key), each with its position in the log, in no order."""

    def following(self, run: int, after: int, limit: int) -> list[tuple[int, Record]]:
        """The next records of a run in the log that count, in the order in which they were added.

        At most `limit`, and fewer where they are large: a few megabytes, or one record.
        """

    def places(self, run: int, limit: int) -> list[int]:
        """The numbers of places of a run that have records, at most `limit` of them."""

    def named_places(self, run: int) -> list[PlaceRow]:
        """All places of a run, in the order in which they were reached."""

    def counts(self, run: int) -> list[PlaceCount]:
        """Per place, in the order in which they were reached."""

    def answers(self, keys: Sequence[bytes]) -> list[Answer]:
        """What is kept under these keys, expired or not; what is damaged is left out. At most 500 keys."""

    def count_answers(self) -> tuple[int, int]:
        """How many are kept, and their bytes."""

    def deaths(self, run: int) -> list[Death]:
        """Of items that have no result yet, oldest first; none from before somebody wanted it run again."""

    def spent(self, run: int) -> Spent:
        """What all sessions of a run have spent on items that got an outcome, replaced ones included."""

    def close(self) -> None: ...


class Store(Protocol):
    """See the module.

    Attributes:
        key: Equal for two stores that are the same place.
    """

    @property
    def key(self) -> str: ...
    def open_writer(self) -> StoreWriter:
        """Take the lock and get ready to write; make the store if it is not there.

        Raises:
            StoreLockedError: If another process writes to it.
            StoreFormatError: If what is there is not a store, is damaged, or is of a newer version.
            StoreError: If it cannot be written to.
        """

    def open_reader(self) -> StoreReader:
        """Raises StoreMissingError where there is nothing to read."""

    def holder(self, run_id: str | None = None) -> str | None:
        """Who writes to it now, or, where a run is named, to that run, in words; None: nobody.

        A file has one writer for all of its runs; a database on a server has one for each run. A run whose
        last session nobody has closed is at work if it has a holder, and was interrupted if not.
        """
