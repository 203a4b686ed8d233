"""The commands and their options; what each does is in a module of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asyncflow.cli.items.command import app as items
from asyncflow.cli.map.command import map_rows
from asyncflow.cli.run.command import run_flow
from asyncflow.cli.runs.command import app as runs
from asyncflow.cli.simulate import simulate

app = typer.Typer(
    name="asyncflow",
    help="Run the same step over many items: LLM and HTTP calls, NumPy batches.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _tell_version(asked: bool) -> None:
    if asked:
        from asyncflow import __version__

        print(f"asyncflow {__version__}")
        raise typer.Exit


@app.callback()
def asyncflow(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    """Run the same step over many items: LLM and HTTP calls, NumPy batches."""


@app.command()
def demo(
    file: Annotated[
        Path | None, typer.Option(help="The Markdown file to translate; by default asyncflow's README.")
    ] = None,
    resumes: Annotated[
        Path | None, typer.Option(help="A folder of résumés as .txt or .md; by default twelve invented ones.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Where the translations and the summary go.")] = Path(
        "asyncflow-demo"
    ),
    model: Annotated[
        str | None,
        typer.Option(help="Ask this model at OPENAI_BASE_URL with OPENAI_API_KEY. This costs money."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Calls at once in the concurrent half.")] = 64,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Translate a document into eight languages, in turn and at once; then screen a folder of résumés."""
    from asyncflow.cli.demo import run_demo

    raise typer.Exit(
        run_demo(
            file=file,
            resumes=resumes,
            output=output,
            model=model,
            concurrency=concurrency,
            as_json=json,
        )
    )


app.add_typer(runs, name="runs", no_args_is_help=True)
app.add_typer(items, name="items", no_args_is_help=True)
app.command("map")(map_rows)
app.command("run")(run_flow)
app.command("simulate")(simulate)
