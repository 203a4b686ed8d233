"""Whether one more attempt is made, and after how long: pure rules over an error and what went before."""

from __future__ import annotations

from dataclasses import dataclass, replace

from asyncflow import errors
from asyncflow.policy.retry import Retry

#: A refusal (429) does not use up the attempts of the call it hits. It has a finite number of its own.
REFUSALS = Retry(attempts=20, wait=1.0, max_wait=60.0, on=errors.RateLimitedError)
#: The same where the server said how long to wait: its word counts, unless it says so again and again.
REFUSALS_TOLD = Retry(attempts=20, wait=0.05, max_wait=60.0, on=errors.RateLimitedError)

#: A server that asks for a longer wait than this has the call fail now, with the wait in its error.
LONGEST_WAIT = 3600.0

#: While its whole provider fails, a call is repeated so many times beyond its attempts, as its lane lets it.
FORGIVEN = 10

#: Methods that mean the same when they arrive twice (RFC 9110, section 9.2.2).
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})


@dataclass(slots=True)
class Tally:
    """What one call has gone through so far."""

    failures: int = 0
    refusals: int = 0
    forgiven: int = 0  # failures of a provider that failed everybody

    @property
    def attempts(self) -> int:
        """All of them, refusals included."""
        return self.failures + self.refusals

    def count(self, error: BaseException) -> None:
        """Note one more attempt that ended with `error`."""
        if isinstance(error, errors.RateLimitedError):
            self.refusals += 1
        else:
            self.failures += 1


def wait_before_next(error: Exception, tally: Tally, retry: Retry | None, repeatable: bool) -> float | None:
    """Seconds until the next attempt, or None if there is none.

    Args:
        error: What the last attempt ended with, already counted in `tally`.
        tally: The attempts made.
        retry: The caller's rule; None repeats nothing at all.
        repeatable: Whether the request may arrive twice. Where it may not, it is repeated only if it cannot
            have been carried out: it was not sent, or was refused for now.

    Example:
        >>> error = errors.ServerError(status=500)
        >>> wait_before_next(error, Tally(failures=1), Retry(wait=1, jitter=0), repeatable=True)
        1.0
        >>> wait_before_next(error, Tally(failures=1), Retry(), repeatable=False) is None
        True
    """
    if retry is None:
        return None
    verdict = getattr(error, "should_retry", None)
    if verdict is False:
        return None
    refused = isinstance(error, errors.RateLimitedError)
    if not (repeatable or refused or verdict or not getattr(error, "sent", True)):
        return None
    asked = getattr(error, "retry_after", None)
    if asked is not None and asked > LONGEST_WAIT:
        return None
    if refused and retry.repeats(error):
        return (REFUSALS if asked is None else REFUSALS_TOLD).wait_after(tally.refusals, error)
    if verdict:
        retry = replace(retry, on=Exception)
    return retry.wait_after(max(tally.failures, 1), error)


def wait_in_outage(error: Exception, tally: Tally, retry: Retry | None, repeatable: bool) -> float | None:
    """The same for a call that has used up its attempts while its provider failed everybody.

    That was not the call's fault, so it goes on, a finite number of times; `retry` of one attempt means one.

    Example:
        >>> error = errors.ServerError(status=503)
        >>> wait_in_outage(error, Tally(failures=4), Retry(attempts=4, wait=1, jitter=0), repeatable=True)
        4.0
        >>> wait_in_outage(error, Tally(4, forgiven=FORGIVEN), Retry(attempts=4), repeatable=True) is None
        True
    """
    if retry is None or retry.attempts < 2 or tally.forgiven >= FORGIVEN:
        return None
    tally.forgiven += 1
    return wait_before_next(error, Tally(retry.attempts - 1, tally.refusals), retry, repeatable)
