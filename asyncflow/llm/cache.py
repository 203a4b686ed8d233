"""Answers used again: the `Cache` protocol, and identical calls in flight that become one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

import anyio

from asyncflow.waiting import waiting

T = TypeVar("T")


class Cache(Protocol):
    """Answers kept by a key. Met by `asyncflow.durability.ResponseCache`, and by whatever has these methods.

    A value is the provider's answer, as JSON. Only whole answers that satisfied what was asked are put in:
    no error, no refusal, nothing that was cut off or empty. What fails here is logged once for each client,
    and the model is asked. A cache that is an async context manager is entered and left by each client that
    uses it.
    """

    async def get(self, key: str) -> Any | None:
        """What was put under the key, or None."""

    async def put(self, key: str, value: Any) -> None:
        """Keep a value; the last one put under a key counts."""


def key_of(*parts: Any) -> str:
    """A key that is the same whenever the parts are, in whatever order a dict's fields stand.

    Example:
        >>> key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}) != key_of({"a": 1})
        True
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=repr)
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()


class Coalescer(Generic[T]):
    """Makes identical calls that are in flight at the same time one call.

    The first caller makes it, and the others wait (`waiting("identical request")`). If the first fails or is
    cancelled, the next of them makes the call itself: a failure is never handed on.
    """

    def __init__(self) -> None:
        self._flying: dict[Hashable, _Flight[T]] = {}

    async def run(self, key: Hashable, call: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """The call's result, and whether somebody else made the call."""
        while True:
            flight = self._flying.get(key)
            if flight is None:
                break
            async with waiting("identical request"):
                await flight.landed.wait()
            if flight.result is not None:
                return flight.result[0], True
        flight = self._flying[key] = _Flight()
        try:
            result = await call()
            flight.result = (result,)
            return result, False
        finally:
            del self._flying[key]
            flight.landed.set()


class _Flight(Generic[T]):
    __slots__ = ("landed", "result")

    def __init__(self) -> None:
        self.landed = anyio.Event()
        self.result: tuple[T] | None = None
