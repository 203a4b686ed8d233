"""How many connections may be open at once: to the system each is an open file, and those it bounds."""

from __future__ import annotations

import sys
from contextlib import suppress

if sys.platform != "win32":
    import resource

#: Files that are open besides: the input, the store and its lock, the loop's own, name look-ups.
_OTHERS = 64


def room_for(connections: int, *, files_each: int = 1) -> int:
    """How many of so many connections may be open at once, at least 1.

    Systems start a process with a bound of 256 or 1,024 files and let it ask for more, so what is missing is
    asked for first.

    Args:
        connections: Wanted at once.
        files_each: 2 where this process has both ends of each.

    Example:
        >>> room_for(8)
        8
    """
    if sys.platform == "win32":  # which does not bound them
        return connections
    needed = connections * files_each + _OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return connections
    more = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    with suppress(ValueError, OSError):  # macOS has a bound besides that it does not tell
        resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
        soft = more
    return min(connections, max(1, (soft - _OTHERS) // files_each))
