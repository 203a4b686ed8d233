"""What users may pass, checked before anything runs: each refusal says what, why and what to do."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from asyncflow.errors import NotSupportedError
from asyncflow.policy.retry import Retry


def check_concurrency(value: object, what: str = "concurrency") -> int:
    """`value` as a number of items at work at the same time, at least 1.

    Raises:
        TypeError, ValueError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(
            f"{what}={value!r}: it is a whole number, how many items are at work at the same time"
        )
    if value < 1:
        raise ValueError(f"{what}={value!r}: at least 1 item has to be at work; 1 means one after the other")
    return value


def check_seconds(value: object, what: str) -> float | None:
    """`value` as a duration in seconds, above 0, or None for no limit.

    Raises:
        TypeError, ValueError: If it is not.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what}={value!r}: it is a number of seconds, or None for no limit")
    if not value > 0:  # also refuses NaN
        raise ValueError(f"{what}={value!r}: it is a number of seconds above 0, or None for no limit")
    return None if value == math.inf else float(value)


def check_retry(value: object) -> Retry | None:
    """`value` as a Retry, or None.

    Raises:
        TypeError: If it is anything else.
    """
    if value is None or isinstance(value, Retry):
        return value
    raise TypeError(f"retry={value!r}: give a Retry, such as Retry(attempts=3, wait=0.5), or None")


def check_function(value: object) -> Callable[..., Any]:
    """`value` as a function of one item.

    Raises:
        TypeError: If it cannot be called.
    """
    if callable(value):
        return value
    hint = "; pass the function itself, without calling it" if discarded(value) else ""
    raise TypeError(f"func={value!r} cannot be called with an item{hint}")


def discarded(value: object) -> bool:
    """Whether `value` is awaitable; a coroutine is closed, so that nothing else complains of it."""
    if inspect.iscoroutine(value):
        value.close()
    return inspect.isawaitable(value)


def refuse(**arguments: object) -> None:
    """Refuse arguments whose part of asyncflow does not exist yet.

    Raises:
        NotSupportedError: If one of them is given.
    """
    for name, value in arguments.items():
        if value is not None:
            raise NotSupportedError(f"{name}={value!r}: {_NOT_YET[name]} Leave {name} out; nothing was run.")


def check_stored(store: object, run_id: object, key: object = None) -> None:
    """Check the arguments of a stored run, as far as they need no store.

    Raises:
        TypeError, ValueError: If they do not fit together.
    """
    if run_id is not None and store is None:
        raise ValueError(f"run_id={run_id!r}: a run has an id in a store; give store= too, a path will do")
    if run_id is not None and (not isinstance(run_id, str) or not run_id):
        raise TypeError(f"run_id={run_id!r}: a text is needed, or None for a new run")
    if key is not None and not callable(key):
        raise TypeError(f"key={key!r}: a function is needed that takes an item and returns its key")


_NOT_YET = {
    "limits": "this version of asyncflow has no shared limits yet; use concurrency.",
}


def is_async(function: Any) -> bool:
    """Whether calling `function` gives a coroutine: async functions, methods, partials, callable objects."""
    while isinstance(function, partial):
        function = function.func
    call = type(function).__call__ if not inspect.isroutine(function) else None
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def name_of(function: Any) -> str:
    """What people call a function."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__name__", None) or type(function).__name__)
