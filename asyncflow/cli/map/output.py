"""The output file: written beside its name, and given its name when it is whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from asyncflow.cli.map.job import Job, UsageError
from asyncflow.cli.map.result import NAMES, table_columns
from asyncflow.cli.map.rows import Rows, delimiter_of, kind_of
from asyncflow.cli.map.scan import Scan
from asyncflow.cli.map.sinks import CSVSink, JSONLSink, ParquetSink, Sink


class Output:
    """Rows on their way into a file.

    They are written to `<name>.part`, in the same folder, and the file gets its name in `finish`. So a file
    of that name is whole, and a run that is killed leaves what it has paid for in the `.part`.

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
        self.path = job.output
        self.part = part_of(job.output)
        self._overwrite = job.overwrite
        try:
            self._file: BinaryIO = open(self.part, "wb" if job.overwrite else "xb")  # noqa: SIM115
        except OSError as exc:
            raise UsageError(f"-o {self.path}: {self.part.name} cannot be written: {exc.strerror}") from exc
        try:
            self._sink = _sink(self._file, job, rows, found, schema)
        except BaseException:
            self.discard()
            raise
        self.written = 0

    def write(self, values: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Add a row."""
        self._sink.write(values, result)
        self.written += 1

    def finish(self) -> None:
        """All rows are in: give the file its name.

        Raises:
            UsageError: If a file of that name has come in the meantime; the `.part` stays.
        """
        self.keep()
        if not self._overwrite and self.path.exists():
            raise UsageError(f"-o {self.path}: somebody made it meanwhile; the answers are in {self.part}")
        os.replace(self.part, self.path)

    def keep(self) -> None:
        """Close the `.part`, with what is in it."""
        if not self._file.closed:
            try:
                self._sink.close()
                self._file.flush()
                os.fsync(self._file.fileno())
            finally:
                self._file.close()

    def discard(self) -> None:
        """Leave nothing."""
        with suppress(OSError):
            self._file.close()
        self.part.unlink(missing_ok=True)


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
    ours = NAMES if kind_of(job.output) == "jsonl" else tuple(table_columns(schema))
    twice = [name for name in (job.prefix + ours_too for ours_too in ours) if name in found.columns]
    if twice:
        raise UsageError(
            f"{job.input}: it has a column {twice[0]!r}, and so would the output; "
            f"give ours another name with --prefix, such as --prefix new_"
        )


def _sink(file: BinaryIO, job: Job, rows: Rows, found: Scan, schema: Mapping[str, Any] | None) -> Sink:
    assert job.output is not None
    kind, ours = kind_of(job.output), table_columns(schema)
    if kind == "jsonl":
        return JSONLSink(file, job.prefix)
    if kind == "csv":
        # A comma in the output of a semicolon file would surprise, a comma in a .tsv even more.
        same = kind_of(job.input) == "csv" and job.input.suffix.lower() == job.output.suffix.lower()
        delimiter = delimiter_of(job.output, job.delimiter if same else None)
        return CSVSink(file, found.columns, ours, job.prefix, delimiter)
    columns = dict(found.kinds)
    return ParquetSink(file, job.output, columns, rows.arrow_schema(), ours, job.prefix)
