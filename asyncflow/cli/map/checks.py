"""Everything that can be looked at before a call is made, the cheap things first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from asyncflow.cli.map.client import check_client, price_of
from asyncflow.cli.map.job import Job
from asyncflow.cli.map.keys import keyed
from asyncflow.cli.map.output import check_names, check_output
from asyncflow.cli.map.rows import Row, Rows, rows_of
from asyncflow.cli.map.scan import Scan, again, scan
from asyncflow.cli.map.schema_file import schema_in
from asyncflow.cli.map.template import Template
from asyncflow.cli.usage import UsageError


@dataclass(frozen=True, slots=True)
class Plan:
    """A job that has been checked.

    Attributes:
        key: Columns by which a row is known again.
        found: What is in the input.
    """

    job: Job
    template: Template
    schema: Mapping[str, Any] | None
    key: tuple[str, ...]
    rows: Rows
    found: Scan

    def keyed(self) -> Iterator[Row]:
        """The rows of the input, read again, with their keys.

        Raises:
            RowsError: If the file is no longer the one that was looked at, or a key comes twice.
        """
        return keyed(again(self.rows, self.found), self.key, unique=self.job.key is not None)


def checked(job: Job) -> Plan:
    """The plan of a job.

    Raises:
        UsageError, OSError: If something is wrong.
    """
    template = Template(job.prompt)
    rows = rows_of(job.input, encoding=job.encoding, delimiter=job.delimiter)
    schema = None if job.schema is None else schema_in(job.schema)
    if job.output is not None or not job.estimate:
        check_output(job)
    price_of(job)
    check_client(job)
    own = _columns(job.key)
    found = scan(rows, template.columns, key=own, limit=job.limit, sample=job.sample if job.estimate else 0)
    if job.output is not None:
        check_names(job, found, schema)
    return Plan(job, template, schema, own or template.columns, rows, found)


def _columns(text: str | None) -> tuple[str, ...]:
    names = () if text is None else tuple(name.strip() for name in text.split(","))
    if "" in names:
        raise UsageError(f"--key {text}: a column's name is missing")
    return names
