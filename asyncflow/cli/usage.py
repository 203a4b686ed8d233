"""The error that every command ends with where what was asked for cannot be done."""

from __future__ import annotations


class UsageError(ValueError):
    """What was asked for cannot be done; told before anything is changed or paid. Exit code 2."""
