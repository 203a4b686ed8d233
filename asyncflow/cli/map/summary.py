"""What a run came to: counted row by row, shown to people, and as one JSON object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from asyncflow.cli.map.job import Job
from asyncflow.cli.map.result import kind_of_error, message_of, reason_of
from asyncflow.llm.statistics import LLMStatistics
from asyncflow.outcome import Ok, Outcome


@dataclass(slots=True)
class Errors:
    """Errors of one kind: how many, and the first of them."""

    kind: str
    where: str
    message: str
    count: int = 0


@dataclass(slots=True)
class Counts:
    """What has become of the rows so far.

    Attributes:
        ok, failed, skipped: Rows.
        cut: Of those that are ok, answers that were cut at the longest allowed.
        errors: By kind.
    """

    ok: int = 0
    failed: int = 0
    skipped: int = 0
    cut: int = 0
    errors: dict[str, Errors] = field(default_factory=dict)

    def add(self, outcome: Outcome[Any]) -> None:
        """Count a row."""
        if isinstance(outcome, Ok):
            self.ok += 1
            self.cut += outcome.value.completion.finish_reason == "length"
            return
        if reason_of(outcome):
            self.skipped += 1
        else:
            self.failed += 1
        kind = kind_of_error(outcome)
        if kind not in self.errors:
            self.errors[kind] = Errors(kind, outcome.item.where, message_of(outcome))
        self.errors[kind].count += 1

    @property
    def ended(self) -> int:
        """Rows that are in the output."""
        return self.ok + self.failed + self.skipped


def figures_of(
    job: Job,
    provider: str,
    counts: Counts,
    used: LLMStatistics,
    rows: int,
    seconds: float,
    stopped: str | None,
    written: str | None,
) -> dict[str, Any]:
    """The summary as JSON.

    Args:
        job: The options.
        provider: The address that was asked, or `"simulated"`.
        counts: Of the rows.
        used: Of the client.
        rows: In the input.
        seconds: It took.
        stopped: What ended it early, or None.
        written: The file that the rows are in, or None where there is none.
    """
    return {
        "input": str(job.input),
        "output": written,
        "complete": stopped is None,
        "stopped": stopped,
        "provider": provider,
        "model": job.model or "simulated",
        "rows": rows,
        "ok": counts.ok,
        "failed": counts.failed,
        "skipped": counts.skipped,
        "not_run": rows - counts.ended,
        "cut": counts.cut,
        "requests": used.attempts,
        "refused": used.refused,
        "reasked": used.reasked,
        "input_tokens": used.usage.input_tokens,
        "output_tokens": used.usage.output_tokens,
        "cost": used.cost,
        "seconds": round(seconds, 3),
        "errors": [
            {"kind": one.kind, "count": one.count, "where": one.where, "message": one.message}
            for one in sorted(counts.errors.values(), key=lambda one: -one.count)
        ],
    }


def lines_of(figures: dict[str, Any]) -> list[str]:
    """The summary for people, a line each.

    Example:
        >>> figures = dict(rows=2, ok=1, failed=1, skipped=0, not_run=0, cut=0, seconds=2.0, requests=3)
        >>> figures |= dict(refused=0, input_tokens=10, output_tokens=5, cost=0.25, output="a.jsonl")
        >>> figures |= dict(errors=[dict(kind="E", count=1, where="in.jsonl:2", message="no")])
        >>> figures |= dict(provider="simulated", reasked=0)
        >>> print("\\n".join(lines_of(figures)))
        2 rows: 1 ok, 1 failed, in 2.0 s
        3 requests, 10 tokens read, 5 written, cost 0.25
          1 × E, such as in.jsonl:2: no
        written: a.jsonl
        All answers came from the simulated provider; no model was asked.
    """
    rows = [f"{figures['ok']:,} ok"]
    rows += [f"{figures[name]:,} {name}" for name in ("failed", "skipped") if figures[name]]
    rows += [f"{figures['not_run']:,} not asked"] if figures["not_run"] else []
    requests = [counted(figures["requests"], "request")]
    requests += [f"{figures['refused']:,} of them refused for now"] if figures["refused"] else []
    requests += [f"{figures['reasked']:,} asked again for the form"] if figures["reasked"] else []
    tokens = f"{figures['input_tokens']:,} tokens read, {figures['output_tokens']:,} written"
    requests += [tokens, *([] if figures["cost"] is None else [f"cost {figures['cost']:.6g}"])]
    lines = [
        f"{counted(figures['rows'], 'row')}: {', '.join(rows)}, in {figures['seconds']:.1f} s",
        ", ".join(requests),
    ]
    if figures["cut"]:
        lines.append(
            f"{counted(figures['cut'], 'answer')} cut at the longest allowed: finish_reason is length"
        )
    for error in figures["errors"]:
        message = error["message"] if len(error["message"]) <= 300 else error["message"][:299] + "…"
        lines.append(f"  {error['count']:,} × {error['kind']}, such as {error['where']}: {message}")
    lines += [f"written: {figures['output']}"] if figures["output"] else []
    if figures["provider"] == "simulated":
        lines.append("All answers came from the simulated provider; no model was asked.")
    return lines


def counted(count: int, word: str) -> str:
    """A number of things.

    Example:
        >>> counted(1, "row"), counted(1200, "row")
        ('1 row', '1,200 rows')
    """
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"
