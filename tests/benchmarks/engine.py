"""How fast and how flat the engine is, beside a pool written by hand and the libraries used instead.

Run from a checkout, `asyncflow` importable from it and the `bench` extra installed:

    python -m tests.benchmarks.engine                           # everything, about two minutes
    python -m tests.benchmarks.engine --only amap stream        # some groups of rows
    python -m tests.benchmarks.engine --only import             # also prints which imports cost the most
    python -m tests.benchmarks.engine --items 5000 --rounds 3   # a quick look
    python -m tests.benchmarks.engine --json

How to read the table. *measured* is the median over the rounds. *ratio* is the median of the rounds' ratios,
case over base in one round, so it need not be the quotient of two medians: quote it, not the microseconds,
which are the machine's. *half of the rounds* is the span of those ratios, the lowest and highest quarter left
out: where a bar lies inside it, the verdict is weather, so run again on a quiet machine. *at most* is the
project's own bar and never fails a build: it exits with 0 either way. `?` marks a bar that could not be
measured because its base is missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from functools import partial
from statistics import median

from tests.benchmarks import programs
from tests.benchmarks.measure import Case, Comparison, Row, compare, environment, interleave, table
from tests.benchmarks.memory import ROOT, RUNS, peak_in_child

BARE = "bare pool"
PEER = "PocketFlow "
NODE = "AsyncParallelBatchNode"
FLOW = "AsyncParallelBatchFlow of one node"
NESTED = "parallel flow of parallel nodes of four items"
STEP = "Flow, a step"
PLAIN = "BatchNode, an item"

COMPARISONS = [
    Comparison("amap", BARE),
    Comparison("amap", "amap", BARE, 2.0),
    Comparison("amap", "amap, retry and timeout set", BARE, 4.0),
    Comparison("stream", "stream, unordered", BARE, 3.5),
    Comparison("stream", "stream, ordered", BARE, 4.0),
    Comparison("node", NODE, BARE, 2.2),
    Comparison("node", NODE, PEER + NODE, 0.2),
    Comparison("flow", FLOW, PEER + FLOW, 0.3),
    Comparison("nested", NESTED, PEER + NESTED, 0.7),
    Comparison("plain", STEP, PEER + STEP, 1.5),
    Comparison("plain", PLAIN, PEER + PLAIN, 2.5),
    Comparison("peers", PEER + NODE, BARE),
    Comparison("peers", PEER + FLOW, BARE),
    Comparison("peers", PEER + NESTED, BARE),
    Comparison("peers", PEER + STEP),
    Comparison("peers", PEER + PLAIN),
    Comparison("peers", "aiometer.amap", BARE),
    Comparison("peers", "aiostream map", BARE),
    Comparison("peers", "LangChain RunnableLambda.abatch", BARE),
]
GROUPS = [*dict.fromkeys(row.group for row in COMPARISONS), "memory", "import"]

MEMORY_BAR_MIB = 10.0
IMPORT_BAR_MS = 150.0
IMPORT_REPEATS = 11


def speed_cases(items: int) -> dict[str, Case]:
    """Every case by name. Slow peers do fewer items: their cost per item hardly depends on the count."""
    every, fifth, tenth = (range(max(1, items // share)) for share in (1, 5, 10))
    outer = max(1, items // 4)  # so that all rows do the same number of items
    abatch = "LangChain RunnableLambda.abatch"
    cases = [
        Case(BARE, items, partial(programs.bare_pool, every)),
        Case("amap", items, partial(programs.amap, every)),
        Case("amap, retry and timeout set", items, partial(programs.amap_guarded, every)),
        Case("stream, unordered", items, partial(programs.stream, every, ordered=False)),
        Case("stream, ordered", items, partial(programs.stream, every, ordered=True)),
        Case("aiometer.amap", len(fifth), partial(programs.aiometer_amap, fifth), "aiometer"),
        Case("aiostream map", len(fifth), partial(programs.aiostream_map, fifth), "aiostream"),
        Case(abatch, len(tenth), partial(programs.langchain_abatch, tenth), "langchain_core"),
    ]
    for prefix, library, needs in (("", "asyncflow", None), (PEER, "pocketflow", "pocketflow")):
        cases += [
            Case(prefix + NODE, items, partial(programs.parallel_node, library, every), needs),
            Case(prefix + FLOW, items, partial(programs.flow_of_one, library, every), needs),
            Case(prefix + NESTED, outer * 4, partial(programs.flow_of_nodes, library, range(outer)), needs),
            Case(prefix + STEP, items, partial(programs.plain_flow, library, items), needs),
            Case(prefix + PLAIN, items, partial(programs.plain_batch, library, every), needs),
        ]
    return {case.name: case for case in cases}


def speed_rows(groups: list[str], items: int, rounds: int) -> tuple[list[Row], list[str]]:
    """The rows of `groups`, and the modules that some of them need and that are not installed."""
    wanted = [row for row in COMPARISONS if row.group in groups]
    names = dict.fromkeys(name for row in wanted for name in (row.base, row.case) if name)
    known = speed_cases(items)
    cases = [known[name] for name in names]
    missing = sorted({case.needs for case in cases if case.needs and case.missing})
    samples = interleave([case for case in cases if not case.missing], rounds) if cases else {}
    return [compare(row, samples) for row in wanted], missing


def memory_rows(items: int) -> list[Row]:
    """Growth of peak memory from a fifth of `items` to twenty times: 10,000 to 1,000,000 at 50,000."""
    few, many = max(1, items // 5), items * 20
    rows = []
    for run in RUNS:
        low, high = peak_in_child(run, few), peak_in_child(run, many)
        what = f"peak memory of {many:,} items above that of {few:,} ({low:.1f} MiB), {run}"
        rows.append(Row(what, high - low, "MiB", bar=None if run == BARE else MEMORY_BAR_MIB))
    return rows


def import_row(repeats: int) -> Row:
    """Median time of `import asyncflow` in fresh processes, the start of the interpreter left out."""
    program = "from time import perf_counter as now; start = now(); import asyncflow; print(now() - start)"
    times = [float(_fresh("-c", program).stdout) * 1e3 for _ in range(repeats + 1)]
    return Row("import asyncflow", median(times[1:]), "ms", bar=IMPORT_BAR_MS)


def slowest_imports(count: int = 15) -> str:
    """The modules that `import asyncflow` spends the most time in, slower than usual for being traced."""

    def traced(program: str) -> dict[str, tuple[int, int]]:
        lines = _fresh("-X", "importtime", "-c", program).stderr.splitlines()[1:]
        fields = [line.removeprefix("import time:").split("|") for line in lines]
        return {name.strip(): (int(own), int(total)) for own, total, name in fields}

    at_start = traced("pass")
    modules = {name: times for name, times in traced("import asyncflow").items() if name not in at_start}
    slowest = sorted(modules.items(), key=lambda entry: entry[1], reverse=True)[:count]
    lines = [f"| of {len(modules)} modules | own ms | with its imports |", "|---|---:|---:|"]
    lines += [f"| {name} | {own / 1e3:.1f} | {total / 1e3:.1f} |" for name, (own, total) in slowest]
    return "\n".join(lines)


def _fresh(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True, text=True)


def options_of(argv: list[str] | None) -> argparse.Namespace:
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.engine", description=summary)
    parser.add_argument("--items", type=int, default=50_000, help="items of a case (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=11, help="measured rounds (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, metavar="NAME", help=str(GROUPS))
    parser.add_argument("--json", action="store_true", help="figures as JSON instead of the table")
    options = parser.parse_args(argv)
    if options.items < 1 or options.rounds < 1:
        parser.error("--items and --rounds are at least 1")
    return options


def main(argv: list[str] | None = None) -> None:
    options = options_of(argv)
    where = {**environment(), "items": options.items, "rounds": options.rounds}
    rows, missing = speed_rows(options.only, options.items, options.rounds)
    if "memory" in options.only:
        rows += memory_rows(options.items)
    if "import" in options.only:
        rows.append(import_row(min(options.rounds, IMPORT_REPEATS)))

    if options.json:
        figures = [{**dataclasses.asdict(row), "met": row.met} for row in rows]
        print(json.dumps({"environment": where, "missing": missing, "rows": figures}, indent=2))
    else:
        print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in where.items()), end="\n\n")
        print(table(rows))
        if options.only == ["import"]:
            print(f"\n{slowest_imports()}")
    for module in missing:
        print(f"MISSING: {module} is not installed, its rows are empty (extra: bench)", file=sys.stderr)


if __name__ == "__main__":
    main()
