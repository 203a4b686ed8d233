"""The output file: made of the input and of what the store has, whole and in input order."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from itertools import islice
from typing import Any, BinaryIO, TypeAlias

from asyncflow.cli.map.job import Job
from asyncflow.cli.map.result import NAMES, flat, skipped, table_columns
from asyncflow.cli.map.rows import Row, Rows
from asyncflow.cli.map.scan import Scan, again
from asyncflow.cli.map.summary import Counts
from asyncflow.cli.tables.formats import kind_of
from asyncflow.cli.tables.sinks import Sink, TooManyDigitsError, sink_for
from asyncflow.cli.tables.whole import check_writable, written_whole
from asyncflow.cli.usage import UsageError

#: Rows of the input in order, each with its result, or None where nothing became of it yet.
Results: TypeAlias = Iterable[tuple[Row, dict[str, Any] | None]]


class Output:
    """Rows with what became of them, on their way into a file.

    The file gets its name when it is written, so one that is there is never half a file. Rows that nothing
    became of yet are not in it.

    Args:
        job: Its output, prefix and delimiter.
        rows: The input.
        found: What is in it.
        schema: Of the answers, or None for text.

    Attributes:
        as_text: Columns of numbers that were written as text, because one of them has more digits than a
            number of a table holds.

    Raises:
        UsageError: If such a file cannot be written.
    """

    def __init__(self, job: Job, rows: Rows, found: Scan, schema: Mapping[str, Any] | None) -> None:
        assert job.output is not None
        self._job, self._rows, self._found = job, rows, found
        self._columns = table_columns(schema)
        self.as_text: list[str] = []
        self._nested = kind_of(job.output) == "jsonl"
        self.path = job.output
        self._was_there = job.output.exists()
        self._try()

    def write(self, results: Callable[[], Results], left_out: bytearray) -> Counts:
        """Write the file; returns what became of the rows.

        Types are those of the schema. What they cannot hold is known when it comes, and then the file is
        begun again, so it is rare that an answer is read twice.

        Args:
            results: Reads for each row of the input its result, or None.
            left_out: By place in the input, whether a row was not asked because the budget was spent.

        Raises:
            UsageError, OSError: If it cannot be written, or somebody has made one meanwhile; a file that was
                there stays. The store has it all.
        """
        if self.path.exists() and not self._was_there:
            raise UsageError(
                f"-o {self.path}: somebody made it meanwhile. Move it away and give the same command again: "
                "the answers are kept"
            )
        while True:
            try:
                with written_whole(self.path) as file:
                    return self._fill(file, results(), left_out)
            except TooManyDigitsError as exc:
                self.as_text.append(exc.column)
                self._columns[exc.column.removeprefix(self._job.prefix)] = "json"

    def count(self, results: Callable[[], Results], left_out: bytearray) -> Counts:
        """The same counts, and no file."""
        counts = Counts()
        for number, (row, result) in enumerate(results()):
            self._counted(counts, number, row, result, left_out)
        return counts

    def _fill(self, file: BinaryIO, results: Results, left_out: bytearray) -> Counts:
        sink, counts = self._sink(file), Counts()
        with closing(sink):  # also where it fails: Arrow's writer must not outlive the file
            for number, (row, result) in enumerate(results):
                ended = self._counted(counts, number, row, result, left_out)
                if ended is not None:
                    sink.write(self._row(row.values, ended))
        return counts

    def _counted(
        self,
        counts: Counts,
        number: int,
        row: Row,
        result: dict[str, Any] | None,
        left_out: bytearray,
    ) -> dict[str, Any] | None:
        if result is None and left_out[number]:
            result = skipped("budget")
        if result is not None:
            counts.add(row.where, result)
        return result

    def _try(self) -> None:
        """Write the first row into memory, and an empty file for a moment: what cannot be is told now."""
        sink = self._sink(io.BytesIO())
        try:
            for row in islice(again(self._rows, self._found), 1):
                sink.write(self._row(row.values, dict.fromkeys(NAMES)))
            sink.close()
        except (ValueError, TypeError, NotImplementedError) as exc:
            raise UsageError(f"-o {self.path}: rows of this input cannot be written so: {exc}") from exc
        try:
            check_writable(self.path)
        except OSError as exc:
            raise UsageError(f"-o {self.path}: it cannot be written: {exc.strerror}") from exc

    def _row(self, values: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
        ours = result if self._nested else flat(result, self._columns)
        return {**values, **{self._job.prefix + name: value for name, value in ours.items()}}

    def _sink(self, file: BinaryIO) -> Sink:
        job, found = self._job, self._found
        ours = {job.prefix + name: kind for name, kind in self._columns.items()}
        # A comma in the output of a semicolon file would surprise, a comma in a .tsv even more.
        same = job.input.suffix.lower() == self.path.suffix.lower()
        return sink_for(
            file,
            self.path,
            {**found.kinds, **ours},
            delimiter=job.delimiter if same else None,
            schema=self._rows.arrow_schema(),
        )


def check_output(job: Job) -> None:
    """Refuse an output that cannot be meant, as far as that can be said without writing or reading a store.

    Raises:
        UsageError: If so.
    """
    path = job.output
    if path is None:
        raise UsageError("-o is missing: where do the answers go? (--estimate needs none)")
    kind_of(path)
    if path.is_dir():
        raise UsageError(f"-o {path}: it is a folder")
    if not path.parent.is_dir():
        raise UsageError(f"-o {path}: there is no folder {path.parent}")
    if path.exists() and path.samefile(job.input):
        raise UsageError(f"-o {path}: it is the input itself; name another file")


def check_owner(job: Job, *, known: bool, where: str) -> None:
    """Refuse an output that is there and is not of a run in the store.

    Raises:
        UsageError: If so.
    """
    assert job.output is not None
    if job.output.exists() and not known and not job.overwrite:
        raise UsageError(
            f"-o {job.output}: it exists, and {where} holds no run that made it; name another file, or give "
            "--overwrite (or name the store of its run with --store)"
        )


def check_names(job: Job, found: Scan, schema: Mapping[str, Any] | None) -> None:
    """Refuse an input that has columns of our names.

    Raises:
        UsageError: If so.
    """
    assert job.output is not None
    ours = NAMES if kind_of(job.output) == "jsonl" else tuple(table_columns(schema))
    twice = [name for name in (job.prefix + ours_too for ours_too in ours) if name in found.columns]
    if twice:
        raise UsageError(
            f"{job.input}: it has a column {twice[0]!r}, and so would the output; "
            f"give ours another name with --prefix, such as --prefix new_"
        )
