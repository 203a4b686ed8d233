"""One attempt in a lane: a context manager, and the ticket that it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from asyncflow.policy.ending import ending_of
from asyncflow.policy.quotas import Charged

if TYPE_CHECKING:
    from asyncflow.policy.lane import RateLane  # which makes attempts, so it is above


class Attempt:
    """What `RateLane.attempt` returns: a context manager, and the ticket it gives. For one attempt."""

    __slots__ = (
        "_lane", "at", "at_once", "charged", "denied", "number", "probe", "reported", "retry", "tokens",
    )  # fmt: skip

    def __init__(self, lane: RateLane, tokens: int | Callable[[], int], retry: bool) -> None:
        self._lane = lane
        self.tokens = tokens
        self.retry = retry
        self.number = 0  # of its start in the lane, from 1; 0: not yet
        self.at = 0.0
        self.at_once = 0
        self.probe = False
        self.charged: Charged | None = None
        self.reported: int | None = None
        self.denied: Exception | None = None

    def answered(self, headers: Mapping[str, str]) -> None:
        """An answer has come, of whatever status. What its headers say of quotas is followed."""
        self._lane.heard(self, headers)

    def used(self, tokens: int) -> None:
        """What the call really used; `Tokens` tell what was read and written."""
        self.reported = tokens if tokens > 0 else 0

    async def __aenter__(self) -> Attempt:
        await self._lane.enter(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._lane.leave(self, ending_of(exc), exc)
