"""`Call`: one logical call, before it is sent."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from asyncflow.http.timeouts import Timeouts


@dataclass(frozen=True, slots=True)
class Call:
    """What every attempt of one call has in common.

    Attributes:
        method, url, headers, content, timeouts: What goes over the wire, and how long it may take.
        repeatable: Whether the server may see it twice.
        keep_method: Whether a redirect that would turn it into a GET is an error.
        accept: Statuses that are no failure, besides the 2xx.
        tokens: What it is expected to use, for the lane.
        used: Takes the result, gives what it really used.
        advice: What to do about a status, for the texts of errors.
    """

    method: str
    url: httpx.URL
    headers: httpx.Headers
    content: bytes | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    repeatable: bool = False
    keep_method: bool = False
    accept: Container[int] = ()
    tokens: int | Callable[[], int] = 0
    used: Callable[[Any], int] | None = None
    advice: Mapping[int, str] | None = None
