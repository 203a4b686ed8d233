"""What the end of an attempt means for its lane: a pure function from the error, if any, to one word."""

from __future__ import annotations

import copy
from enum import Enum

from asyncflow.errors import (
    AccessDeniedError,
    BadAnswerError,
    HTTPConnectionError,
    HTTPError,
    HTTPTimeoutError,
    RateLimitedError,
    TransientError,
)


class Ending(Enum):
    """How an attempt ended.

    Where a server fails or refuses, nothing was used. Where an answer was lost on the way, it counts as used.
    """

    SERVED = "served"
    ANSWERED = "answered: the request was wrong, the provider is alive"
    REFUSED = "refused for now"
    DENIED = "denied for good"
    FAILED = "the provider failed"
    CUT = "the answer was lost, broken or late"
    UNSENT = "never reached the provider, which was not the provider's fault"
    UNREACHABLE = "never reached the provider, which was"
    UNKNOWN = "cancelled, or an error that tells nothing about the provider"


def ending_of(error: BaseException | None) -> Ending:
    """How an attempt ended that this error passed through.

    Example:
        >>> ending_of(None).name, ending_of(RateLimitedError(status=429)).name, ending_of(KeyError()).name
        ('SERVED', 'REFUSED', 'UNKNOWN')
    """
    match error:
        case None:
            return Ending.SERVED
        case RateLimitedError():
            return Ending.REFUSED
        case AccessDeniedError():
            return Ending.DENIED
        case HTTPError(sent=False) if isinstance(error, TransientError):
            return Ending.UNREACHABLE
        case HTTPError(sent=False):
            return Ending.UNSENT
        case HTTPConnectionError() | HTTPTimeoutError() | BadAnswerError():
            return Ending.CUT
        case TransientError():
            return Ending.FAILED
        case HTTPError():
            return Ending.ANSWERED
        case TimeoutError() | OSError():  # from a function that is not ours; ConnectionError is an OSError
            return Ending.CUT
        case _:
            return Ending.UNKNOWN


def refused_unsent(error: Exception, lane: str) -> Exception:
    """The error for a call that is not sent because its lane is stopped: a new one of the same class."""
    again = copy.copy(error)
    again.args = (f"not sent: the lane {lane or 'of this client'} is stopped since this happened: {error}",)
    again.__cause__ = again.__context__ = None
    if isinstance(again, HTTPError):
        again.sent = False
        again.attempts = 0
    if isinstance(again, (HTTPError, TransientError)):
        again.exhausted = True
    return again
