"""What one `asyncflow map` was asked to do: a frozen record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Job:
    """The options of `asyncflow map`, as given.

    Attributes:
        input, output: Files; their suffixes say what they hold. No output only with `estimate`.
        prompt: The template, `{column}` for a column of the row.
        retries: Attempts after the first.
        concurrency: Calls at once; `"auto"`: a limit that finds itself, as the client's own default is.
        sample: Rows that `estimate` asks.
        prefix: Put before the names of our columns.
        store: A path or URL; None: beside the output.
        new: Begin another run, though there is one of this output.
        retry_failed: Ask only the rows that failed.
        changed: What to do with results of another prompt, model or schema.
        key: Columns by which a row is known again, with commas; None: those that the prompt names.
        cache: A path or URL where answers are looked for and kept; None: nowhere.
        grace: Seconds that calls in flight have to end in, once it is asked to stop.
    """

    input: Path
    output: Path | None
    prompt: str
    model: str | None = None
    system: str | None = None
    schema: Path | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    provider: str = "openai"
    base_url: str | None = None
    concurrency: int | Literal["auto"] = "auto"
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    max_cost: float | None = None
    price_input: float | None = None
    price_output: float | None = None
    price_cached_input: float | None = None
    retries: int = 3
    timeout: float | None = None
    limit: int | None = None
    estimate: bool = False
    sample: int = 5
    simulate: bool = False
    json: bool = False
    overwrite: bool = False
    prefix: str = ""
    encoding: str = "utf-8"
    delimiter: str | None = None
    store: str | None = None
    new: bool = False
    retry_failed: bool = False
    changed: Literal["refuse", "keep", "drop"] = "refuse"
    key: str | None = None
    cache: str | None = None
    grace: float = 30.0
