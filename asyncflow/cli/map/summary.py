"""What a run came to: counted row by row, shown to people, and as one JSON object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from asyncflow.cli.map.job import Job
from asyncflow.llm.statistics import LLMStatistics


@dataclass(slots=True)
class Errors:
    """Errors of one kind: how many, and the first of them."""

    kind: str
    where: str
    message: str
    count: int = 0


@dataclass(slots=True)
class Counts:
    """What has become of the rows.

    Attributes:
        ok, failed, skipped: Rows.
        cut: Of those that are ok, answers that were cut at the longest allowed.
        cost: Of the whole run, in all of its sessions; None: no price was known.
        errors: By kind.
    """

    ok: int = 0
    failed: int = 0
    skipped: int = 0
    cut: int = 0
    cost: float | None = None
    errors: dict[str, Errors] = field(default_factory=dict)

    def add(self, where: str, result: Mapping[str, Any]) -> None:
        """Count a row, by our columns of it.

        Example:
            >>> counts = Counts()
            >>> counts.add("a:1", {"error": {"kind": "E", "message": "no"}})
            >>> counts.failed, counts.errors["E"].count
            (1, 1)
        """
        error = result["error"]
        if error is None:
            self.ok += 1
            self.cut += result["finish_reason"] == "length"
            return
        kind = error["kind"]
        if kind == "Skipped":
            self.skipped += 1
        else:
            self.failed += 1
        if kind not in self.errors:
            self.errors[kind] = Errors(kind, where, error["message"])
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
    *,
    run: str,
    store: str,
    kept: int,
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
        run, store: The run's id, and where it lies.
        kept: Rows whose results were there before.
    """
    return {
        "input": str(job.input),
        "output": written,
        "run": run,
        "store": store,
        "complete": stopped is None and counts.ended == rows,
        "stopped": stopped,
        "provider": provider,
        "model": job.model or "simulated",
        "rows": rows,
        "kept": kept,
        "ok": counts.ok,
        "failed": counts.failed,
        "skipped": counts.skipped,
        "not_run": rows - counts.ended,
        "cut": counts.cut,
        "requests": used.attempts,
        "cached": used.cached,
        "refused": used.refused,
        "reasked": used.reasked,
        "input_tokens": used.usage.input_tokens,
        "output_tokens": used.usage.output_tokens,
        "cost": used.cost,
        "total_cost": counts.cost,
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
        >>> figures |= dict(provider="simulated", reasked=0, kept=0, cached=0)
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
    rows[0] += f" ({figures['kept']:,} of them kept)" if figures["kept"] else ""
    requests = [counted(figures["requests"], "request")]
    requests += [f"{counted(figures['cached'], 'answer')} from the cache"] if figures["cached"] else []
    requests += [f"{figures['refused']:,} of them refused for now"] if figures["refused"] else []
    requests += [f"{figures['reasked']:,} asked again for the form"] if figures["reasked"] else []
    tokens = f"{figures['input_tokens']:,} tokens read, {figures['output_tokens']:,} written"
    requests += [tokens, *([] if figures["cost"] is None else [f"cost {figures['cost']:.6g}"])]
    if figures["kept"] and figures["total_cost"] is not None:
        requests[-1] += f" ({figures['total_cost']:.6g} in all)"
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
