"""Checks of options that several commands have. Light to import, as the commands are."""

from __future__ import annotations

import typer


def check_changed(value: str) -> None:
    """`--changed`: what to do with results of a program that has changed since.

    Raises:
        typer.BadParameter: If it is none of the three.
    """
    if value not in ("refuse", "keep", "drop"):
        raise typer.BadParameter(f"{value!r}: refuse, keep or drop", param_hint="--changed")


def check_number(name: str, value: float | None) -> None:
    """A number of an option, by its name in Python, if one is given.

    Raises:
        typer.BadParameter: If it is below 0, infinite or no number.
    """
    if value is not None and not 0 <= value < float("inf"):
        option = "--" + name.replace("_", "-")
        raise typer.BadParameter(f"{value}: a finite number from 0 is needed", param_hint=option)
