"""One HTTP request done well. The only room that imports httpx.

`HTTPClient` calls any endpoint; `AiohttpTransport` and `SlotTransport` are httpx transports that may be used
on their own; `Timeouts` says how long each part may take; a `Lane` says when an attempt may start.
"""

from asyncflow.http.call import Call
from asyncflow.http.client import HTTPClient, HTTPStatistics
from asyncflow.http.endpoint import Endpoint, UnusableAnswerError
from asyncflow.http.hints import Quota, RateLimits
from asyncflow.http.lane import Lane, LaneStatistics, OpenLane, SlotLane, Ticket
from asyncflow.http.local import LocalTransport
from asyncflow.http.slots import SlotTransport
from asyncflow.http.sse import Event
from asyncflow.http.stream import Stream
from asyncflow.http.timeouts import Timeouts
from asyncflow.http.transport import AiohttpTransport
from asyncflow.http.wire import HTTPXClient, HTTPXTransport

__all__ = [
    "AiohttpTransport",
    "Call",
    "Endpoint",
    "Event",
    "HTTPClient",
    "HTTPStatistics",
    "HTTPXClient",
    "HTTPXTransport",
    "Lane",
    "LaneStatistics",
    "LocalTransport",
    "OpenLane",
    "Quota",
    "RateLimits",
    "SlotLane",
    "SlotTransport",
    "Stream",
    "Ticket",
    "Timeouts",
    "UnusableAnswerError",
]
