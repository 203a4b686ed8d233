"""The options of `asyncflow runs`. Light to import: the work is loaded when a command is used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Stored runs: list and show them, write their items into a file, delete them.")

STORE = typer.Option(
    "--store", help="A path, or postgresql://… .", show_default="runs.db and *.runs.db in this folder"
)
RUN = typer.Argument(help="A run's id, any unique beginning of it, or @last.", show_default=False)
JSON = typer.Option("--json", help="Print JSON.")


@app.command("list")
def list_runs(
    store: Annotated[str | None, STORE] = None,
    status: Annotated[
        str | None,
        typer.Option(help="Only these: running, finished, failed, stopped, cancelled, interrupted."),
    ] = None,
    json: Annotated[bool, JSON] = False,
) -> None:
    """The runs of a store, oldest first, with their status and how many items are done and failed."""
    from asyncflow.cli.runs.listing import list_runs
    from asyncflow.cli.store.ending import ended

    raise typer.Exit(ended("asyncflow runs list", lambda: list_runs(store, status, json)))


@app.command("show")
def show_run(
    run: Annotated[str, RUN] = "@last",
    store: Annotated[str | None, STORE] = None,
    json: Annotated[bool, JSON] = False,
) -> None:
    """One run: its sessions, its nodes, tokens and cost, and its errors by kind with one example each."""
    from asyncflow.cli.runs.show import show_run
    from asyncflow.cli.store.ending import ended

    raise typer.Exit(ended("asyncflow runs show", lambda: show_run(store, run, json)))


@app.command("export")
def export_run(
    run: Annotated[str, RUN],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="A .jsonl, .csv, .tsv or .parquet file; without it JSON lines are printed."
        ),
    ] = None,
    store: Annotated[str | None, STORE] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only the items that failed.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write each item of a run: key, value or error, attempts, times, usage and cost."""
    from asyncflow.cli.runs.export import export_run
    from asyncflow.cli.store.ending import ended

    raise typer.Exit(
        ended("asyncflow runs export", lambda: export_run(store, run, output, failed, overwrite, json))
    )


@app.command("rm")
def remove_runs(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Ids, unique beginnings of them, or @last.", show_default=False)
    ] = None,
    store: Annotated[str | None, STORE] = None,
    older_than: Annotated[
        float | None,
        typer.Option(min=0, help="All whose last session began more than so many days ago."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    shrink: Annotated[
        bool, typer.Option(help="Give the space back at once; it takes as much free disk for a moment.")
    ] = True,
    json: Annotated[bool, JSON] = False,
) -> None:
    """Delete runs and all that is recorded of them, and make the file smaller."""
    from asyncflow.cli.runs.remove import remove_runs
    from asyncflow.cli.store.ending import ended

    raise typer.Exit(
        ended("asyncflow runs rm", lambda: remove_runs(store, runs or [], older_than, yes, shrink, json))
    )
