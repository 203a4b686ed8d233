"""From errors to exit codes: 2 usage, 3 refused; and what is said."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from asyncflow.cli.usage import UsageError
from asyncflow.errors import AsyncflowError, NotSupportedError


def ended(command: str, work: Callable[[], int]) -> int:
    """Do the work of a command; returns its exit code.

    Args:
        command: What messages begin with, such as `"asyncflow runs list"`.
        work: Does it; returns the code where nothing is raised.
    """
    try:
        code = work()
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UsageError, NotSupportedError, OSError) as exc:
        print(f"{command}: {exc}", file=sys.stderr)
        return 2
    except AsyncflowError as exc:
        print(f"{command}: {exc}", file=sys.stderr)
        return 3
