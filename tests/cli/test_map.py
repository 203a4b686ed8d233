"""`asyncflow map`: what it asks, writes, says and returns when the input is good."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asyncflow.cli.map.client import HIGHEST, concurrency_of
from asyncflow.cli.map.job import Job
from asyncflow.cli.map.run import run_map
from asyncflow.llm import Completion, Usage
from asyncflow.llm.statistics import LLMStatistics
from asyncflow.testing import Asked, SimulatedProvider
from tests.cli.conftest import Here, environment

Rows = Callable[..., Path]
Read = Callable[[Path], list[Any]]
OUT = ("-o", "out.jsonl")


def test_rows_keep_what_they_had_and_get_an_answer(
    ask: Any, rows: Rows, read: Read, tmp_path: Path, provider: SimulatedProvider
) -> None:
    """An output row is the input row, then answer, finish_reason, usage, cost, attempts and error."""
    rows(
        {"id": 7, "text": "Hello", "language": "French"}, {"text": "Bye", "language": "German", "tags": ["a"]}
    )
    ran = ask("in.jsonl", *OUT, "--prompt", "To {language}: {text}", "--price-input", 1, "--price-output", 2)
    assert ran.returncode == 0, ran.stderr
    first, second = read(tmp_path / "out.jsonl")
    tokens = {"input_tokens": 7, "output_tokens": 4, "cached_input_tokens": 0}
    assert first == {
        "id": 7,
        "text": "Hello",
        "language": "French",
        "answer": "TO FRENCH: HELLO",
        "finish_reason": "stop",
        "usage": tokens,
        "cost": pytest.approx((7 + 2 * 4) / 1e6),
        "attempts": 1,
        "error": None,
    }
    assert list(first)[3:] == list(second)[3:]
    assert second["tags"] == ["a"] and second["answer"] == "TO GERMAN: BYE"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "in.jsonl",
        "out.jsonl",
        "out.jsonl.runs.db",
        "out.jsonl.runs.db.lock",
    ]


def test_system_and_sampling_are_sent(ask: Any, rows: Rows, provider: SimulatedProvider) -> None:
    """--system, --temperature and --max-tokens reach the provider; braces in the system text mean nothing."""
    rows({"a": 1})
    assert (
        ask(
            "in.jsonl", *OUT, "--prompt", "{a}", "--system", "{a}!", "--temperature", 0.5, "--max-tokens", 9
        ).returncode
        == 0
    )
    (asked,) = provider.log
    assert asked.system == "{a}!" and asked.body["temperature"] == 0.5 and asked.body["max_tokens"] == 9


def test_a_slow_row_holds_no_other_back(here: Any, rows: Rows, read: Read, tmp_path: Path) -> None:
    """While the first row waits for its answer all others are asked; the output is in input order."""
    rows(*({"n": n} for n in range(50)))
    others: set[str] = set()

    async def reply(asked: Asked) -> str:
        others.add(asked.prompt)
        while asked.prompt == "0" and len(others) < 50:
            await asyncio.sleep(0)
        return f"<{asked.prompt}>"

    with SimulatedProvider(reply=reply, latency=0) as provider:
        ran = here(
            "map", "in.jsonl", *OUT, "--prompt", "{n}", "--model", "m", "--base-url", provider.base_url,
            "--concurrency", 2,
        )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    got = read(tmp_path / "out.jsonl")
    assert [(row["n"], row["answer"]) for row in got] == [(n, f"<{n}>") for n in range(50)]


def test_failed_rows_are_in_the_output(here: Any, rows: Rows, read: Read, tmp_path: Path) -> None:
    """A row that fails stays in its place with the error's kind and text; it is counted; exit code 1."""
    rows(*({"n": n} for n in range(5)))
    with SimulatedProvider(reply=lambda asked: "ok", latency=0, script=[400]) as provider:
        ran = here(
            "map", "in.jsonl", *OUT, "--prompt", "{n}", "--model", "m", "--base-url", provider.base_url,
            "--concurrency", 1,
        )  # fmt: skip
    assert ran.returncode == 1
    got = read(tmp_path / "out.jsonl")
    assert [row["n"] for row in got] == list(range(5))
    assert [row["error"] is None for row in got] == [False, True, True, True, True]
    assert got[0]["error"]["kind"] == "RequestRefusedError" and "simulated 400" in got[0]["error"]["message"]
    assert got[0]["answer"] is None and got[0]["usage"] is None and got[0]["attempts"] == 1
    assert "5 rows: 4 ok, 1 failed" in ran.stdout
    assert re.search(r"1 × RequestRefusedError, such as .*in\.jsonl:1: .*400", ran.stdout)


def test_attempts_are_counted(here: Any, rows: Rows, read: Read, tmp_path: Path) -> None:
    """`attempts` counts the requests made for a row, the repeated ones too, of a row that failed as well."""
    rows({"n": 0}, {"n": 1})
    script = [503, "cut", None, 500, 500, 500]
    with SimulatedProvider(reply=lambda asked: "ok", latency=0, script=script) as provider:
        ran = here(
            "map", "in.jsonl", *OUT, "--prompt", "{n}", "--model", "m", "--base-url", provider.base_url,
            "--concurrency", 1, "--retries", 2, "--json",
        )  # fmt: skip
    first, second = read(tmp_path / "out.jsonl")
    assert (first["answer"], first["attempts"]) == ("ok", 3)
    assert (second["error"]["kind"], second["attempts"]) == ("ServerError", 3)
    assert json.loads(ran.stdout)["requests"] == 6


def test_the_summary_as_json(here: Any, rows: Rows) -> None:
    """--json prints one object and nothing else on standard output; its figures add up."""
    rows(*({"n": n} for n in range(6)))
    with SimulatedProvider(reply=lambda asked: "four", latency=0, script=[400, 404, 400]) as provider:
        ran = here(
            "map", "in.jsonl", *OUT, "--prompt", "{n}", "--model", "m", "--base-url", provider.base_url,
            "--json", "--price-input", 1, "--price-output", 1, "--concurrency", 1,
        )  # fmt: skip
        url = provider.base_url
    figures = json.loads(ran.stdout)
    assert (figures["rows"], figures["ok"], figures["failed"], figures["not_run"]) == (6, 3, 3, 0)
    assert (figures["provider"], figures["model"], figures["complete"]) == (url, "m", True)
    assert figures["output_tokens"] == 3 and figures["cost"] == pytest.approx(
        (figures["input_tokens"] + 3) / 1e6
    )
    assert sum(one["count"] for one in figures["errors"]) == 3
    assert all(one["where"].startswith("in.jsonl:") and one["message"] for one in figures["errors"])
    assert ran.returncode == 1


def test_a_schema(here: Any, rows: Rows, read: Read, tmp_path: Path) -> None:
    """With --schema the answer is the value; one of another form fails with what is wrong, and its tokens."""
    rows({"n": 1}, {"n": 2})
    schema = {"type": "object", "properties": {"stars": {"type": "integer"}}, "required": ["stars"]}
    (tmp_path / "schema.json").write_text(json.dumps(schema))

    def reply(asked: Asked) -> str:
        return '{"stars": 4}' if asked.messages[0]["content"] == "1" else '{"stars": "many"}'

    with SimulatedProvider(reply=reply, latency=0) as provider:
        ran = here(
            "map", "in.jsonl", *OUT, "--prompt", "{n}", "--model", "m", "--base-url", provider.base_url,
            "--schema", "schema.json", "--price-input", 1, "--price-output", 1,
        )  # fmt: skip
    good, bad = read(tmp_path / "out.jsonl")
    assert good["answer"] == {"stars": 4}
    assert bad["error"]["kind"] == "ModelOutputError" and "integer" in bad["error"]["message"]
    assert bad["usage"]["output_tokens"] > 0 and bad["cost"] > 0
    assert ran.returncode == 1


def test_cut_answers_are_said(ask: Any, rows: Rows, read: Read, tmp_path: Path) -> None:
    """Answers cut at --max-tokens are ok, are marked in their row, and are counted in the summary."""
    rows({"t": "a long text to be said again"}, {"t": "b"})
    ran = ask("in.jsonl", *OUT, "--prompt", "{t}", "--max-tokens", 2)
    assert ran.returncode == 0
    assert [row["finish_reason"] for row in read(tmp_path / "out.jsonl")] == ["length", "stop"]
    assert "1 answer cut" in ran.stdout


def test_limit(ask: Any, rows: Rows, read: Read, tmp_path: Path, provider: SimulatedProvider) -> None:
    """--limit asks the first rows only, and looks at no others, so a later broken line does not matter."""
    with rows({"n": 1}, {"n": 2}).open("a") as file:
        file.write("{broken\n")
    assert ask("in.jsonl", *OUT, "--prompt", "{n}", "--limit", 2).returncode == 0
    assert [row["n"] for row in read(tmp_path / "out.jsonl")] == [1, 2]
    assert len(provider.log) == 2


def test_anthropic(here: Any, rows: Rows, read: Read, tmp_path: Path, provider: SimulatedProvider) -> None:
    """--provider anthropic speaks the Messages protocol."""
    rows({"n": "a"})
    ran = here(
        "map", "in.jsonl", *OUT, "--prompt", "{n}", "--model", "m", "--provider", "anthropic",
        "--base-url", provider.anthropic_base_url,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert read(tmp_path / "out.jsonl")[0]["answer"] == "A"
    assert provider.log[0].kind == "messages"


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_simulate_asks_no_model(here: Any, rows: Rows, kind: str) -> None:
    """--simulate needs neither key nor model, and says before and after that no model is asked."""
    rows({"text": "Hello"})
    ran = here("map", "in.jsonl", *OUT, "--prompt", "To French: {text}", "--simulate", "--provider", kind)
    assert ran.returncode == 0, ran.stderr
    assert "no model is asked" in ran.stderr and "no model was asked" in ran.stdout.splitlines()[-1]


def test_no_rows(ask: Any, tmp_path: Path, provider: SimulatedProvider) -> None:
    """An empty input gives an empty output, no call, and exit code 0."""
    (tmp_path / "in.jsonl").write_text("\n\n")
    ran = ask("in.jsonl", *OUT, "--prompt", "{n}")
    assert ran.returncode == 0 and "in.jsonl has no rows: there is nothing to ask" in ran.stderr
    assert "costs" not in ran.stderr
    assert (tmp_path / "out.jsonl").read_bytes() == b"" and not provider.log


def test_a_prompt_without_a_column(ask: Any, rows: Rows) -> None:
    """It is allowed, and said, because every row then asks the same."""
    rows({"n": 1})
    ran = ask("in.jsonl", *OUT, "--prompt", "Tell a joke")
    assert ran.returncode == 0 and "names no {column}" in ran.stderr


@pytest.mark.parametrize("prompt", ["", " \n"])
def test_an_empty_prompt(ask: Any, rows: Rows, provider: SimulatedProvider, prompt: str) -> None:
    """It is refused: nobody wants to pay for rows that are asked nothing."""
    rows({"n": 1})
    ran = ask("in.jsonl", *OUT, "--prompt", prompt)
    assert ran.returncode == 2 and "--prompt is empty" in ran.stderr and not provider.log


def test_progress(here: Any, rows: Rows) -> None:
    """Off a terminal the last line of the progress has all rows, how many failed, rate and time."""
    rows(*({"n": n} for n in range(4)))
    with SimulatedProvider(latency=0, script=[400]) as provider:
        ran = here(
            "map", "in.jsonl", *OUT, "--prompt", "{n}", "--model", "m", "--base-url", provider.base_url
        )
    assert re.search(r"map: 4/4 done, [\d.,]+/(s|min), in \d+\.\d s, 1 failed", ran.stderr)


class _Instant:
    """A client that answers at once, without a server."""

    model, base_url = "m", "nowhere"

    async def complete(self, prompt: str, **options: Any) -> Completion:
        return Completion(prompt, Usage(1, 1))

    def statistics(self) -> LLMStatistics:
        return LLMStatistics()


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_memory_is_flat(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 rows of 2,000 characters need hardly more memory than 1,000 do, where 64 are at work at once."""

    async def client_of(job: Job, stack: Any) -> Any:
        return _Instant()

    monkeypatch.setattr("asyncflow.cli.map.run.client_of", client_of)

    def peak(count: int) -> int:
        source = tmp_path / f"{count}.jsonl"
        with source.open("w") as file:
            file.writelines(json.dumps({"n": n, "text": f"{n:02000}"}) + "\n" for n in range(count))
        job = Job(source, tmp_path / f"{count}.out.{suffix}", "{text}", simulate=True, json=True)
        job = replace(job, concurrency=64)
        tracemalloc.start()
        try:
            assert run_map(job) == 0
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small, large = peak(1000), peak(2000)
    assert large < small + 1_500_000, (small, large)  # the rows between are 4 MB, with their answers


def test_a_thousand_rows(here: Any, read: Read, tmp_path: Path) -> None:
    """1,000 rows through a real server: each once, in order, each with the answer to its own prompt."""
    with (tmp_path / "in.jsonl").open("w") as file:
        file.writelines(json.dumps({"n": n}) + "\n" for n in range(1000))
    faults: dict[int | str, float] = {503: 0.02, "reset": 0.01}
    with SimulatedProvider(reply=lambda asked: f"<{asked.prompt}>", latency=0, faults=faults) as provider:
        ran = here(
            "map", "in.jsonl", *OUT, "--prompt", "{n}", "--model", "m", "--base-url", provider.base_url,
            "--retries", 9,
        )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
    got = read(tmp_path / "out.jsonl")
    assert [(row["n"], row["answer"]) for row in got] == [(n, f"<{n}>") for n in range(1000)]
    assert sum(row["attempts"] for row in got) == provider.statistics().asked > 1000


def test_a_quota_is_kept(here: Any, rows: Rows) -> None:
    """With the provider's quota given nothing is refused; without it some is, and all is answered too."""
    rows(*({"n": n} for n in range(12)))
    refused = []
    for more in ((), ("--requests-per-minute", 1200, "--tokens-per-minute", 10**6)):
        with SimulatedProvider(latency=0, requests_per_minute=1320, burst=0.3) as provider:
            ran = here(
                "map", "in.jsonl", *OUT, "--prompt", "{n}", "--model", "m", "--base-url", provider.base_url,
                "--json", "--new", *more,
            )  # fmt: skip
        assert ran.returncode == 0, ran.stdout
        refused.append(json.loads(ran.stdout)["refused"])
    assert refused[0] > 0 == refused[1]


def test_max_cost(ask: Any, rows: Rows, read: Read, tmp_path: Path) -> None:
    """What --max-cost stops is skipped and says so, is no failure, and the cost stays below; exit code 1."""
    rows(*({"t": f"{n:020}"} for n in range(40)))
    # Eight tokens read and five written: thirteen in the currency's millionths.
    prices = ("--price-input", 1, "--price-output", 1, "--max-cost", 130e-6)
    ran = ask("in.jsonl", *OUT, "--prompt", "{t}", "--max-tokens", 5, "--json", *prices)
    assert ran.returncode == 1
    figures = json.loads(ran.stdout)
    assert 5 <= figures["ok"] <= 10 and figures["cost"] <= 130e-6 * 1.1
    assert (figures["failed"], figures["ok"] + figures["skipped"], figures["complete"]) == (0, 40, True)
    errors = [row["error"] for row in read(tmp_path / "out.jsonl") if row["error"]]
    assert errors == [{"kind": "Skipped", "message": "budget"}] * figures["skipped"]


@pytest.mark.parametrize("said", [(), ("--concurrency", "auto")])
def test_the_limit_finds_itself(here: Here, rows: Rows, said: tuple[str, ...]) -> None:
    """By default a provider's limit at once is found by being refused now and then, and no row is lost."""
    rows(*({"n": n} for n in range(200)))
    with SimulatedProvider(latency=0.01, concurrency_limit=8) as provider:
        to = ("--model", "m", "--base-url", provider.base_url)
        ran = here("map", "in.jsonl", *OUT, "--prompt", "{n}", *to, *said)
    assert ran.returncode == 0 and "200 ok" in ran.stdout
    assert 0 < provider.statistics().refused["concurrency"] < 100


def test_a_number_is_kept_to(ask: Any, rows: Rows, provider: SimulatedProvider) -> None:
    """With a number the engine starts no more rows, and a number that the system cannot open is refused."""
    rows({"n": 1})
    assert concurrency_of(Job(Path("i"), None, "", concurrency=7)) == 7
    assert concurrency_of(Job(Path("i"), None, "")) == HIGHEST
    ran = ask("in.jsonl", *OUT, "--prompt", "{n}", "--concurrency", 10**9)
    assert ran.returncode == 2 and "ulimit -n" in ran.stderr and not provider.log


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such bound")
def test_few_files_may_be_open(rows: Rows, tmp_path: Path) -> None:
    """Where the system lets a process open few files, fewer calls are made at once, and all are answered."""
    rows(*({"n": n} for n in range(1500)))
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))\n"
        "from asyncflow.cli import main; main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, "map", "in.jsonl", *OUT, "--prompt", "{n}", "--simulate"],
        capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0 and "1,500 ok" in ran.stdout, ran.stderr
    assert "Too many open files" not in ran.stderr
