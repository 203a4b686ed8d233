"""The command that goes on where one ended."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from asyncflow.cli.store.reading import without_password

#: Options that belong to the first time only.
_ONCE = ("--new", "--overwrite", "--retry-failed")


def command_again(arguments: Sequence[str] | None = None) -> str:
    """The same command, without what was meant for once, and without a password.

    Example:
        >>> command_again(["map", "in.jsonl", "--new", "-o", "my out.jsonl"])
        "asyncflow map in.jsonl -o 'my out.jsonl'"
    """
    given = sys.argv[1:] if arguments is None else arguments
    return shlex.join(["asyncflow", *(without_password(one) for one in given if one not in _ONCE)])
