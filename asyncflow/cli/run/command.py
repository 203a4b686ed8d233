"""The options of `asyncflow run`. Light to import: the engine is loaded when the command is used."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from asyncflow.cli.options import check_changed, check_number


def run_flow(
    target: Annotated[
        str, typer.Argument(help="The file and the flow or node in it: flows.py:flow.", show_default=False)
    ],
    shared: Annotated[
        str | None,
        typer.Option(help="What the flow is given: a JSON object, or the name of a file that holds one."),
    ] = None,
    store: Annotated[
        str, typer.Option(help="Where results are recorded: a path, or postgresql://… .")
    ] = "runs.db",
    run_id: Annotated[
        str | None,
        typer.Option(help="Go on with this run (a unique beginning of its id, or @last), or name a new one."),
    ] = None,
    new: Annotated[
        bool, typer.Option("--new", help="Begin again, though a run of the same is there.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Go on only if items have failed; they run again.")
    ] = False,
    keep_failed: Annotated[
        bool, typer.Option("--keep-failed", help="Items that have failed stay failed.")
    ] = False,
    changed: Annotated[
        str,
        typer.Option(help="Results of nodes that have changed since: refuse to go on, keep or drop them."),
    ] = "refuse",
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="At most so many execs at once, in the whole flow.")
    ] = None,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds that items in flight may take after Ctrl-C.")
    ] = 30.0,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, shared included.")] = False,
) -> None:
    """Run a flow from a Python file. Killed or stopped, the same command goes on where it was.

    asyncflow run flows.py:flow --shared '{"folder": "texts"}'
    """
    from asyncflow.cli.run.perform import Asked, perform

    given: dict[str, Any] = dict(locals())
    asked = Asked(**{name: given[name] for name in Asked.__dataclass_fields__})
    check_changed(changed)
    check_number("grace", grace)
    if new and run_id is not None:
        raise typer.BadParameter("a new run gets an id of its own; leave one of them out", param_hint="--new")
    if retry_failed and (new or keep_failed):
        other = "--new" if new else "--keep-failed"
        raise typer.BadParameter(f"it is the contrary of {other}", param_hint="--retry-failed")
    raise typer.Exit(perform(asked))
