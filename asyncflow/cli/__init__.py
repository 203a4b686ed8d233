"""The command `asyncflow`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. Exit codes: 0 ok, 1 some items failed, 2 usage, 3 refused, 130/143 signals."""
    from asyncflow.cli.app import app

    try:
        app()
    except SystemExit as exc:
        if exc.code == 130 and _was_interrupted(exc):  # typer has caught Ctrl-C, and says nothing
            print("\nstopped", file=sys.stderr)
        raise


def _was_interrupted(error: BaseException) -> bool:
    """Whether it comes of a KeyboardInterrupt, and not of a command that has ended with that code itself."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, KeyboardInterrupt):
        seen = seen.__cause__ or seen.__context__
    return seen is not None
