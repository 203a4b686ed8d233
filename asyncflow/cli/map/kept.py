"""The run of an output, in its store: finding it, comparing it with what is asked now, counting, reading."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from asyncflow.cli.map.job import Job
from asyncflow.cli.map.result import result_of
from asyncflow.cli.map.rows import Row
from asyncflow.cli.store.named import Name
from asyncflow.cli.store.reading import DEFAULT, beside, reader_of, without_password
from asyncflow.cli.usage import UsageError
from asyncflow.durability import Fingerprint, as_store, compare
from asyncflow.durability.readback import read_back
from asyncflow.durability.store import AGAIN, FAILED, Record, RunRow, Store, StoreReader
from asyncflow.errors import ResumeMismatchError
from asyncflow.llm import Price

#: The name of the step: the function that `stream` is given.
STEP = "map"

#: The fact by which rows are known again.
KNOWN_BY = "key"


@dataclass(slots=True)
class Standing:
    """What a run has of the rows of the input as it is now. Counts are of rows.

    Attributes:
        done, failed, in_flight: Of the input; `failed` with those that somebody wants again.
        failed_rows: Where in the input those are that failed.
        gone: Records of rows that are no longer in the input.
        cost: Of all that the run has asked so far.
    """

    done: int = 0
    failed: int = 0
    in_flight: int = 0
    failed_rows: array[int] = field(default_factory=lambda: array("q"))
    gone: int = 0
    cost: float = 0.0


def stores_of(job: Job) -> list[str]:
    """Where runs of this output may lie, first where one that begins now does.

    That is beside it, under its name, unless told otherwise. Earlier versions kept the runs of all outputs of
    a folder in one file, to which only one process can write.
    """
    assert job.output is not None
    if job.store is not None:
        return [job.store]
    return [str(beside(job.output)), str(job.output.parent / DEFAULT)]


def name_of(job: Job) -> Name:
    """What the runs of this output are called."""
    assert job.output is not None
    return Name(STEP, job.output.name, str(job.output.resolve()))


def facts_of(job: Job, columns: Iterable[str], schema: Mapping[str, Any] | None) -> dict[str, str]:
    """What makes answers what they are. Where one of these changes, answers of before are others'."""
    facts: dict[str, Any] = {
        "prompt": job.prompt,
        "system": job.system,
        "model": job.model,
        "provider": "simulated" if job.simulate else job.provider,
        "schema": None if schema is None else json.dumps(schema, sort_keys=True),
        "max_tokens": job.max_tokens,
        "temperature": job.temperature,
        KNOWN_BY: ", ".join(columns) or "their number",
    }
    return {name: str(value) for name, value in facts.items() if value is not None}


class Kept:
    """See the module. Nothing is written here.

    Args:
        job: Names output and store.

    Attributes:
        store: The store.
        where: Its name, for people.
        run: The last run of this output, or None.
    """

    def __init__(self, job: Job) -> None:
        self.name = name_of(job)
        self.run: RunRow | None = None
        places = stores_of(job)
        at = places[0]
        for place in places:
            with reader_of(as_store(place)) as reader:
                if reader is not None and (found := self.name.latest(reader)) is not None:
                    at, self.run = place, found
                    break
        self.where = without_password(at)
        self.store: Store = as_store(at)

    def check(self, facts: Mapping[str, str], changed: str) -> list[str]:
        """How what is asked now differs from what the run was recorded with, a line each.

        Raises:
            ResumeMismatchError: If it does and may not.
            UsageError: If results are to be kept of rows that cannot be known again.
        """
        program = None if self.run is None else json.loads(self.run.fingerprint).get("program")
        if program is None:
            return []
        before = Fingerprint.from_text(program)
        found = [
            each.text.removeprefix(f"{STEP}: ") for each in compare(before, Fingerprint({STEP: dict(facts)}))
        ]
        if found and changed == "refuse":
            raise ResumeMismatchError(differences=tuple(found))
        moved = [one for one in found if one.startswith(f"{KNOWN_BY} ")]
        if moved and changed == "keep":
            raise UsageError(
                f"--changed keep: {moved[0]}, so no row would be known again; --changed drop asks all "
                "again, --new begins another run. (--key COLUMN makes rows known by a column of their own)"
            )
        return found

    def standing(self, rows: Iterable[Row]) -> Standing:
        """What there is of these rows, keys set, counted; while the store is held."""
        found = Standing()
        if self.run is None:
            return found
        with self._reader() as reader:
            last = self.run.sessions[-1].number if self.run.sessions else None
            flying = {death.key for death in reader.deaths(self.run.number) if death.session == last}
            kept = 0
            for number, (_, record) in enumerate(self._read(reader, self.run, rows)):
                if record is None:
                    continue
                kept += 1
                if record.kind in (FAILED, AGAIN):
                    found.failed += 1
                    found.failed_rows.append(number)
                else:
                    found.done += 1
            found.cost = reader.spent(self.run.number).cost or 0.0
            counts = reader.counts(self.run.number)
            found.in_flight = len(flying)
            found.gone = max(0, sum(each.done + each.failed + each.again for each in counts) - kept)
        return found

    def spent(self, run_id: str) -> float | None:
        """What the run has cost in all of its sessions, or None where no price was known."""
        with self._reader() as reader:
            run = reader.run(run_id)
            return None if run is None else reader.spent(run.number).cost

    def results(
        self, run_id: str, rows: Iterable[Row], price: Price | None
    ) -> Iterator[tuple[Row, dict[str, Any] | None]]:
        """Each row with what became of it as our columns, or None: nothing did yet."""
        with self._reader() as reader:
            run = reader.run(run_id)
            assert run is not None
            for row, record in self._read(reader, run, rows):
                known = record is not None and record.kind != AGAIN
                yield row, result_of(record, price) if record is not None and known else None

    def _read(
        self, reader: StoreReader, run: RunRow, rows: Iterable[Row]
    ) -> Iterator[tuple[Row, Record | None]]:
        return read_back(reader, run, (STEP,), rows, key=lambda row: row.key)

    def _reader(self) -> closing[StoreReader]:
        return closing(self.store.open_reader())
