"""The options of `asyncflow map`. Light to import: the engine is loaded when the command is used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from asyncflow.cli.options import check_changed, check_number


def map_rows(
    input: Annotated[Path, typer.Argument(help="The rows: a .jsonl, .csv, .tsv or .parquet file.")],
    prompt: Annotated[
        str,
        typer.Option(help="What to ask for each row; {column} stands for the row's value, {{ for a brace."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where the rows go with their answers, by suffix too."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model, as the provider writes it.")] = None,
    system: Annotated[str | None, typer.Option(help="The system text, the same for each row.")] = None,
    schema: Annotated[
        Path | None, typer.Option(help="A JSON schema that each answer must satisfy, in a file.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer, in tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="The provider's own by default.")] = None,
    provider: Annotated[
        str, typer.Option(help="openai, for everything that speaks its protocol, or anthropic.")
    ] = "openai",
    base_url: Annotated[
        str | None, typer.Option(help="Another server, such as http://127.0.0.1:8000/v1.")
    ] = None,
    concurrency: Annotated[
        str, typer.Option(help="Calls at once: a number, or auto, a limit that finds itself.")
    ] = "auto",
    requests_per_minute: Annotated[float | None, typer.Option(min=1, help="The provider's quota.")] = None,
    tokens_per_minute: Annotated[float | None, typer.Option(min=1, help="The provider's quota.")] = None,
    max_cost: Annotated[
        float | None, typer.Option(min=0, help="Stop asking before this much is spent; needs prices.")
    ] = None,
    price_input: Annotated[
        float | None, typer.Option(min=0, help="Money per million tokens read, in your currency.")
    ] = None,
    price_output: Annotated[
        float | None, typer.Option(min=0, help="Money per million tokens written.")
    ] = None,
    price_cached_input: Annotated[
        float | None, typer.Option(min=0, help="Money per million tokens read from the provider's cache.")
    ] = None,
    retries: Annotated[int, typer.Option(min=0, help="Attempts after the first, where one may help.")] = 3,
    timeout: Annotated[float | None, typer.Option(help="Seconds for one attempt; 600 by default.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many rows.")] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Ask a few rows, say what all would cost and take, and stop.")
    ] = False,
    sample: Annotated[int, typer.Option(min=1, help="Rows that --estimate asks, drawn at random.")] = 5,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Try it without a key: no model is asked, nothing is paid.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an output that exists and is of no run.")
    ] = False,
    store: Annotated[
        str | None,
        typer.Option(
            help="Where answers are recorded: a path, or postgresql://…; beside the output, OUTPUT.runs.db."
        ),
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(
            help="Look for answers here first, and keep them: a path, or postgresql://…, of any output's."
        ),
    ] = None,
    new: Annotated[
        bool, typer.Option("--new", help="Ask all rows again, though a run of this output is there.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask only the rows that have failed.")
    ] = False,
    changed: Annotated[
        str,
        typer.Option(help="Answers of another prompt, model or schema: refuse to go on, keep or drop them."),
    ] = "refuse",
    key: Annotated[
        str | None,
        typer.Option(help="Columns by which a row is known again; by default those that the prompt names."),
    ] = None,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds that calls in flight may take after Ctrl-C.")
    ] = 30.0,
    prefix: Annotated[str, typer.Option(help="Put before the names of the columns that are added.")] = "",
    encoding: Annotated[str, typer.Option(help="Of a text input, such as latin-1.")] = "utf-8",
    delimiter: Annotated[
        str | None, typer.Option(help="Between the cells of a .csv; a comma, or a tab for .tsv.")
    ] = None,
) -> None:
    """Ask a model about every row of a file, and write the rows with their answers. Killed, it goes on.

    asyncflow map in.jsonl -o out.jsonl --prompt 'Translate to {language}: {text}' --model gpt-5-mini
    """
    from asyncflow.cli.map.job import Job
    from asyncflow.cli.map.run import run_map

    given: dict[str, Any] = dict(locals())
    job = Job(
        **{name: given[name] for name in Job.__dataclass_fields__ if name != "concurrency"},
        concurrency=_calls(concurrency),
    )
    raise typer.Exit(run_map(_sound(job)))


def _calls(text: str) -> Any:
    """`"auto"`, or a number from 1."""
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r}: a whole number from 1, or auto", param_hint="--concurrency")
    return int(text)


def _sound(job: Any) -> Any:
    """The job, if its numbers and letters can be meant."""
    for name in ("timeout", "temperature", "price_input", "price_output", "max_cost", "grace"):
        check_number(name, getattr(job, name))
    if job.timeout == 0:
        raise typer.BadParameter("0: it must be above 0", param_hint="--timeout")
    check_changed(job.changed)
    if job.new and job.retry_failed:
        raise typer.BadParameter(
            "a new run has no failed rows yet; leave --new out", param_hint="--retry-failed"
        )
    if job.delimiter is not None and (len(job.delimiter) != 1 or job.delimiter in '"\r\n'):
        raise typer.BadParameter(f"{job.delimiter!r}: one character is needed", param_hint="--delimiter")
    return job
