"""One run's memory, on a store: see `asyncflow.engine.journal.Journal`, and `opening` for how to get one."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from asyncflow.durability.codec import Codec, Encoder
from asyncflow.durability.crashes import verdicts
from asyncflow.durability.keys import PlaceKeys
from asyncflow.durability.place import RunPlace, Tally
from asyncflow.durability.recall import Asker, Recall
from asyncflow.durability.saying import Counts, banner
from asyncflow.durability.store import PlaceRow, RunRow, StoreReader
from asyncflow.durability.writer import Writer
from asyncflow.engine.journal import RetryFailed, Verdict

#: Places whose numbers are kept to answer `has_records` without asking.
_PLACES = 10_000
#: What `asyncflow.llm` returns is declared always: a higher room, met by name if it is there.
_MET = (("asyncflow.llm.completion", ("Completion", "Usage", "ToolCall")),)


@dataclass(frozen=True, slots=True)
class JournalStatistics:
    """What a journal has done in this session."""

    questions: int
    groups: int
    records: int


class RunJournal:
    """See the module.

    Attributes:
        run_id: The run.
        session: The number of this opening of it.
        resumed: Whether the run was there before.
        counts: What was found at the opening.
    """

    def __init__(
        self,
        run_id: str,
        run: int,
        session: int,
        before: RunRow | None,
        writer: Writer,
        reader: StoreReader | None,
        *,
        since: dict[tuple[str, ...], int],
        retry_failed: RetryFailed,
        total: int | None,
        encoders: Iterable[Encoder],
        types: Iterable[Any],
    ) -> None:
        self.run_id = run_id
        self.session = session
        self.resumed = before is not None
        self._run = run
        self._writer = writer
        self._since = since
        self._retry_failed = retry_failed
        self._total = total
        self._tally = Tally()
        self._encoders = tuple(encoders)
        self._types = (*types, *_met())
        self._codecs: dict[Any, Codec] = {}
        self._open: list[RunPlace] = []
        self._crowd = 1000
        self._recall: Recall | None = None
        self._known: frozenset[int] | None = frozenset()
        self._suspects: dict[bytes, Verdict] = {}
        self.counts = Counts()
        if reader is not None and before is not None:
            self._look_back(reader, before)

    def _look_back(self, reader: StoreReader, before: RunRow) -> None:
        known = reader.places(self._run, _PLACES + 1)
        self._known = frozenset(known) if len(known) <= _PLACES else None
        deaths = reader.deaths(self._run)
        self._suspects = verdicts(deaths)
        last = before.sessions[-1] if before.sessions else None
        all_places = reader.counts(self._run)
        # Of a node that was dropped this very time nothing counts; of one dropped earlier, what came since.
        anew = {nodes for nodes, until in self._since.items() if last is not None and until >= last.number}
        per_place = [each for each in all_places if nodes_of(each.path) not in anew]
        self.counts = Counts(
            done=sum(each.done for each in per_place),
            failed=sum(each.failed for each in per_place),
            dropped=sum(each.done + each.failed for each in all_places if each not in per_place),
            in_flight=sum(last is not None and each.session == last.number for each in deaths),
            suspects=len(self._suspects),
        )
        self._recall = Recall(reader, self._run)

    def place(
        self,
        path: tuple[str, ...],
        visit: int,
        host: Asker,
        *,
        key: Callable[[Any], Any] | None,
        result_type: Any,
    ) -> RunPlace:
        """The place of a node: see the protocol."""
        keys = PlaceKeys(self.run_id, path, visit, key)
        known = self._known is None or keys.place in self._known
        place = RunPlace(
            keys,
            PlaceRow(keys.place, self._run, path, visit),
            self.session,
            self._writer,
            self._recall if known else None,
            self._codec(result_type),
            host,
            since=self._since.get(nodes_of(path), 0) if self._since else 0,
            retry_failed=self._retry_failed,
            suspects=self._suspects,
            tally=self._tally,
        )
        self._open.append(place)
        if len(self._open) > self._crowd:
            self._open = [each for each in self._open if each._in_flight]
            self._crowd = 2 * len(self._open) + 1000
        return place

    @property
    def found(self) -> str | None:
        """What an earlier process left, in words."""
        if not self.resumed:
            return None
        return banner(self.counts, self._total, retry_failed=self._retry_failed)

    @property
    def asked(self) -> tuple[int, int] | None:
        """Of a resumed run that has come to its end: how many of its items were not recorded before, and how
        many that were recorded it no longer has. None where it began now."""
        if not self.resumed:
            return None
        tally, counts = self._tally, self.counts
        return tally.items - tally.known, max(0, counts.done + counts.failed - tally.known)

    @property
    def suspects(self) -> int:
        """How many items are to run alone, or not at all, and have no outcome yet."""
        return len(self._suspects)

    def close(self, how: str) -> None:
        """Commit what waits and end the session: `"finished"`, `"failed"`, `"stopped"` or `"cancelled"`."""
        try:
            for place in self._open:
                place.leave()
            self._writer.call(lambda store: store.end(self.session, how, time.time()), again=True)
        finally:
            if self._recall is not None:
                self._recall.close()

    def statistics(self) -> JournalStatistics:
        """What was done so far. The writer's part counts for all runs that share it."""
        asked = self._recall.questions if self._recall is not None else 0
        return JournalStatistics(asked, self._writer.groups, self._writer.records)

    def __repr__(self) -> str:
        return f"<RunJournal {self.run_id} session={self.session} {self.counts} {self._writer!r}>"

    def _codec(self, result_type: Any) -> Codec:
        try:
            found = self._codecs.get(result_type)
        except TypeError:  # an Annotated with a list in it, say
            return Codec(result_type, encoders=self._encoders, also=self._types)
        if found is None:
            found = self._codecs[result_type] = Codec(result_type, encoders=self._encoders, also=self._types)
        return found


def nodes_of(path: tuple[str, ...]) -> tuple[str, ...]:
    """The names in a place's path, without the visits and the parameters' digests of the runs around it."""
    return tuple(part for part in path if not _WAY.fullmatch(part))


_WAY = re.compile(r"visit \d+|[0-9a-f]{32}")


def _met() -> list[Any]:
    found = []
    for module, names in _MET:
        if module in sys.modules:
            found += [
                getattr(sys.modules[module], name) for name in names if hasattr(sys.modules[module], name)
            ]
    return found
