"""What a lane is doing at one moment: a frozen record, and the line that `repr` shows."""

from __future__ import annotations

from dataclasses import dataclass

from asyncflow.policy.settings import PER_MINUTE, LaneSettings


@dataclass(frozen=True, slots=True)
class LaneStatistics:
    """What a lane is doing, and has done. All counts are of attempts.

    Attributes:
        name: The lane's.
        state: `"open"`, `"paused"` (refused), `"down"` (the breaker is open), `"probing"`, or `"stopped"`.
        limit: Attempts at once by now, or None for any number.
        best_known: The most at once that is known to be served, where the limit finds itself.
        running, waiting: Under way now, and in line.
        started, succeeded, refused, failed: So far.
        pauses: Waves of refusals so far.
        resumes_in: Seconds until a pause is over.
        requests_last_minute, tokens_last_minute: Used of the quotas, calls under way at what they are likely
            to use; 0 where there is no such quota.
    """

    name: str = ""
    state: str = "open"
    limit: int | None = None
    best_known: int | None = None
    running: int = 0
    waiting: int = 0
    started: int = 0
    succeeded: int = 0
    refused: int = 0
    failed: int = 0
    pauses: int = 0
    resumes_in: float = 0.0
    requests_last_minute: float = 0.0
    tokens_last_minute: float = 0.0


def describe(now: LaneStatistics, settings: LaneSettings) -> str:
    """One line for people.

    Example:
        >>> describe(LaneStatistics("m", limit=16, running=3), LaneSettings(concurrency="auto"))
        'm open limit=16 (auto) running=3 waiting=0'
    """
    parts = [now.name] if now.name else []
    parts.append(f"paused for {now.resumes_in:.1f} s" if now.state == "paused" else now.state)
    if now.limit is not None:
        parts.append(f"limit={now.limit}" + (" (auto)" if settings.concurrency == "auto" else ""))
    parts.append(f"running={now.running} waiting={now.waiting}")
    for name in PER_MINUTE:
        per_minute = getattr(settings, name)
        if per_minute is not None:
            parts.append(f"{per_minute:g} {name.removesuffix('_per_minute').replace('_', ' ')}/min")
    return " ".join(parts)
