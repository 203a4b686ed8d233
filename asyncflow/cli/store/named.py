"""Runs that a command finds again by what it was asked to do: their ids say so, and sort by time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b

from asyncflow.durability import new_run_id
from asyncflow.durability.store import RunRow, StoreReader

#: Characters for people in the middle of an id: with the command and the digest they make 40, its most.
_WORDS = 26


@dataclass(frozen=True, slots=True)
class Name:
    """What the runs of one command on one thing are called.

    Attributes:
        command: Such as `"map"`.
        words: For people.
        identity: What tells such runs apart, whole; a digest of it is in the id.

    Example:
        >>> Name("map", "out.jsonl", "/home/ann/out.jsonl").slug
        'map-out-jsonl-48109bb1'
    """

    command: str
    words: str
    identity: str

    @property
    def slug(self) -> str:
        """The middle of the id."""
        words = re.sub("[^a-z0-9]+", "-", self.words.lower()).strip("-")[:_WORDS].strip("-")
        digest = blake2b(self.identity.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
        return "-".join(part for part in (self.command, words, digest) if part)

    def new_id(self) -> str:
        """An id for a run that begins now."""
        return new_run_id(self.slug)

    def latest(self, reader: StoreReader) -> RunRow | None:
        """The last of these runs that was begun, if there is one."""
        of_name = re.compile(rf"\d{{8}}-\d{{6}}-{self.slug}-[0-9a-z]{{4}}")
        found = [run for run in reader.runs() if of_name.fullmatch(run.id)]
        return found[-1] if found else None
