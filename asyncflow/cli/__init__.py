"""The command `asyncflow`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. Exit codes: 0 ok, 1 some items failed, 2 usage, 3 refused, 130/143 signals."""
    from asyncflow.cli.app import app

    try:
        app()
    except SystemExit as exc:
        if exc.code == 130 and type(exc.__context__).__name__ != "Exit":  # typer says nothing of a Ctrl-C
            print("\nstopped", file=sys.stderr)
        raise
