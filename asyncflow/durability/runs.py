"""What runs are called, and how they stand."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from asyncflow.durability.store import INTERRUPTED, RunRow

#: Crockford's base 32: no letter looks like a digit.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_run_id(name: str, now: datetime | None = None, token: str | None = None) -> str:
    """A readable id that sorts by time: UTC, the name in lower case, four random characters.

    Example:
        >>> new_run_id("Summarise CVs!", datetime(2026, 11, 20, 11, 38, 26, tzinfo=UTC), "7f3k")
        '20261120-113826-summarise-cvs-7f3k'
    """
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    slug = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "run"
    token = token or "".join(secrets.choice(_ALPHABET) for _ in range(4))
    return f"{moment:%Y%m%d-%H%M%S}-{slug}-{token}"


def resolve(text: str, ids: Sequence[str]) -> str:
    """The one id that `text` means: itself, `@last` (ids come oldest first), or a unique prefix.

    Raises:
        LookupError: If none fits, or several do.

    Example:
        >>> resolve("2026", ["20261120-113826-a-7f3k"])
        '20261120-113826-a-7f3k'
    """
    if text in ids:
        return text
    if text == "@last":
        if not ids:
            raise LookupError("there are no runs yet")
        return ids[-1]
    fitting = [each for each in ids if each.startswith(text)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise LookupError(f"no run begins with {text!r}")
    raise LookupError(f"{len(fitting)} runs begin with {text!r}: {', '.join(fitting[:5])}")


def status(run: RunRow, *, held: bool) -> str:
    """`"running"`, or how the last session ended; a killed process's run is interrupted at once.

    Args:
        held: Whether a process holds the store's lock now.
    """
    if not run.sessions:
        return INTERRUPTED
    return run.sessions[-1].how or ("running" if held else INTERRUPTED)
