"""The output file: answers are kept as they come, and the file is made of them when all are there."""

from __future__ import annotations

import io
import json
import os
from array import array
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from asyncflow.cli.map.job import Job
from asyncflow.cli.map.result import NAMES, flat, table_columns
from asyncflow.cli.map.rows import Rows
from asyncflow.cli.map.scan import Scan, again
from asyncflow.cli.tables.formats import kind_of
from asyncflow.cli.tables.sinks import JSONLSink, Sink, sink_for
from asyncflow.cli.usage import UsageError


class Output:
    """Rows on their way into a file.

    As answers come, in whatever order, each is a line of JSON in `<name>.part`, with its row. When all are
    there, the input is read once more, each row gets its answer, and the file gets its name. So a slow row
    holds no other back, a file of that name is whole and in input order, and a run that is killed, however
    hard, leaves what it has paid for in the `.part`. Memory: eight bytes a row.

    Args:
        job: Its output, prefix and delimiter.
        rows: The input.
        found: What is in it.
        schema: Of the answers, or None for text.

    Raises:
        UsageError: If the file cannot be written, or something is there that would be lost.
    """

    def __init__(self, job: Job, rows: Rows, found: Scan, schema: Mapping[str, Any] | None) -> None:
        assert job.output is not None
        self._job, self._rows, self._found, self._schema = job, rows, found, schema
        self.path = job.output
        self.part = part_of(job.output)
        self._names = {name: job.prefix + name for name in NAMES}
        self._try()
        try:
            self._file: BinaryIO = open(self.part, "wb" if job.overwrite else "xb")  # noqa: SIM115
        except OSError as exc:
            raise UsageError(f"-o {self.path}: {self.part.name} cannot be written: {exc.strerror}") from exc
        self._answers = JSONLSink(self._file)
        self._places = array("q", [-1]) * found.rows
        self.written = 0

    def write(self, index: int, values: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Keep what became of the row at that place of the input."""
        self._places[index] = self._file.tell()
        self._answers.write({**values, **self._ours(result)})
        self._file.flush()  # a process that is killed loses what it has not handed over
        self.written += 1

    def finish(self) -> None:
        """All rows are in: make the file.

        Raises:
            UsageError, OSError: If it cannot be made, or somebody has made one meanwhile; the `.part` stays.
        """
        self.keep()
        if not self._job.overwrite and self.path.exists():
            raise UsageError(f"-o {self.path}: somebody made it meanwhile; the answers are in {self.part}")
        new = self.path.with_name(self.path.name + ".new")
        try:
            with open(new, "wb") as file, open(self.part, "rb") as answers:
                self._fill(file, answers)
            os.replace(new, self.path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        self.part.unlink()

    def keep(self) -> None:
        """Close the `.part`, with what is in it."""
        if not self._file.closed:
            try:
                self._file.flush()
                os.fsync(self._file.fileno())
            finally:
                self._file.close()

    def discard(self) -> None:
        """Leave nothing."""
        with suppress(OSError):
            self._file.close()
        self.part.unlink(missing_ok=True)

    def _try(self) -> None:
        """Write the first row into memory, so that a type that cannot be written is told now."""
        sink = self._sink(io.BytesIO())
        try:
            for row in islice(again(self._rows, self._found), 1):
                sink.write(self._row(row.values, dict.fromkeys(NAMES)))
            sink.close()
        except (ValueError, TypeError, NotImplementedError) as exc:
            raise UsageError(f"-o {self.path}: rows of this input cannot be written so: {exc}") from exc

    def _fill(self, file: BinaryIO, answers: BinaryIO) -> None:
        sink = self._sink(file)
        for place, row in zip(self._places, again(self._rows, self._found), strict=True):
            answers.seek(place)
            line = json.loads(answers.readline())
            sink.write(self._row(row.values, {ours: line[name] for ours, name in self._names.items()}))
        sink.close()
        file.flush()
        os.fsync(file.fileno())

    def _ours(self, result: Mapping[str, Any]) -> dict[str, Any]:
        return {name: result[ours] for ours, name in self._names.items()}

    def _row(self, values: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
        if kind_of(self.path) == "jsonl":
            return {**values, **self._ours(result)}
        cells = flat(result, table_columns(self._schema))
        return {**values, **{self._job.prefix + name: value for name, value in cells.items()}}

    def _sink(self, file: BinaryIO) -> Sink:
        job, found = self._job, self._found
        ours = {job.prefix + name: kind for name, kind in table_columns(self._schema).items()}
        # A comma in the output of a semicolon file would surprise, a comma in a .tsv even more.
        same = job.input.suffix.lower() == self.path.suffix.lower()
        return sink_for(
            file,
            self.path,
            {**found.kinds, **ours},
            delimiter=job.delimiter if same else None,
            schema=self._rows.arrow_schema(),
        )


def part_of(output: Path) -> Path:
    """Where an unfinished output lies."""
    return output.with_name(output.name + ".part")


def check_output(job: Job) -> None:
    """Refuse an output that would destroy something, as far as that can be said without writing.

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
    if job.overwrite:
        return
    if path.exists():
        raise UsageError(f"-o {path}: it exists; name another file, or give --overwrite")
    part = part_of(path)
    if part.exists():
        raise UsageError(
            f"-o {path}: {part} is there, with the answers of a run that did not end or still runs; "
            "move it away, or give --overwrite to throw it away"
        )


def check_names(job: Job, found: Scan, schema: Mapping[str, Any] | None) -> None:
    """Refuse an input that has columns of our names.

    Raises:
        UsageError: If so.
    """
    assert job.output is not None
    # The .part is JSON lines, whatever the output will be.
    ours = NAMES if kind_of(job.output) == "jsonl" else (*NAMES, *table_columns(schema))
    twice = [name for name in (job.prefix + ours_too for ours_too in ours) if name in found.columns]
    if twice:
        raise UsageError(
            f"{job.input}: it has a column {twice[0]!r}, and so would the output; "
            f"give ours another name with --prefix, such as --prefix new_"
        )
