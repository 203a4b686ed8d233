"""The options of `asyncflow items`. Light to import: the work is loaded when a command is used."""

from __future__ import annotations

from typing import Annotated

import typer

from asyncflow.cli.runs.command import JSON, RUN, STORE

app = typer.Typer(help="Items of a stored run: list and show them, have failed ones run again.")

OUTCOME = typer.Option(help="Only these: ok, failed, again (wanted again), dropped.")
ITEM = typer.Argument(help="An item's id, any unique beginning of it, or its key.", show_default=False)


@app.command("list")
def list_items(
    run: Annotated[str, RUN] = "@last",
    store: Annotated[str | None, STORE] = None,
    outcome: Annotated[str | None, OUTCOME] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only the failed: --outcome failed.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0 for all.")] = 100,
    json: Annotated[bool, JSON] = False,
) -> None:
    """The items of a run that have a record, in the order in which they ended."""
    from asyncflow.cli.items.listing import list_items
    from asyncflow.cli.store.ending import ended

    only = "failed" if failed else outcome
    raise typer.Exit(ended("asyncflow items list", lambda: list_items(store, run, only, limit, json)))


@app.command("show")
def show_item(
    run: Annotated[str, RUN],
    item: Annotated[str, ITEM],
    store: Annotated[str | None, STORE] = None,
    json: Annotated[bool, JSON] = False,
) -> None:
    """All that is recorded of one item: its value, or its error with the traceback."""
    from asyncflow.cli.items.listing import show_item
    from asyncflow.cli.store.ending import ended

    raise typer.Exit(ended("asyncflow items show", lambda: show_item(store, run, item, json)))


@app.command("retry")
def retry_items(
    run: Annotated[str, RUN],
    items: Annotated[list[str] | None, ITEM] = None,
    store: Annotated[str | None, STORE] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All that failed.")] = False,
    done: Annotated[
        bool, typer.Option("--done", help="Items with a result may be named too; it is given up.")
    ] = False,
    json: Annotated[bool, JSON] = False,
) -> None:
    """Mark failed or quarantined items, so that they run again when the run goes on."""
    from asyncflow.cli.items.retry import retry_items
    from asyncflow.cli.store.ending import ended

    raise typer.Exit(
        ended("asyncflow items retry", lambda: retry_items(store, run, items or [], failed, done, json))
    )
