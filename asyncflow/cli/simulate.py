"""`asyncflow simulate`: the simulated provider as a server, until Ctrl-C."""

from __future__ import annotations

import asyncio
import errno
import json as json_module
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from asyncflow.testing import SimulatedProvider


def simulate(
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 0,
    latency: Annotated[float, typer.Option(min=0, help="Median seconds before an answer.")] = 0.05,
    spread: Annotated[float, typer.Option(min=0, help="How wide latencies vary (sigma of their log).")] = 0.4,
    seconds_per_token: Annotated[float, typer.Option(min=0, help="Added for each token written.")] = 0.0,
    requests_per_minute: Annotated[
        float | None, typer.Option(min=1, help="A quota; past it requests are refused with 429.")
    ] = None,
    tokens_per_minute: Annotated[
        float | None, typer.Option(min=1, help="A quota; past it requests are refused with 429.")
    ] = None,
    burst: Annotated[float, typer.Option(min=0, help="Seconds' worth of quota to be used at once.")] = 60.0,
    concurrency_limit: Annotated[
        int | None, typer.Option(min=1, help="A limit at once that no header tells of; past it 429.")
    ] = None,
    slope_limit: Annotated[
        float | None,
        typer.Option(
            min=1, help="How many times the last second's requests a second may bring; past it 429."
        ),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="A share of requests that go wrong, such as 500=0.02 or hang=0.001; repeatable."),
    ] = None,
    script: Annotated[
        str,
        typer.Option(help="Faults of the first requests, in the order they come, such as 429,-,hang,500."),
    ] = "",
    seed: Annotated[int, typer.Option(help="Latencies and faults depend on it.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the addresses as one line of JSON.")] = False,
) -> None:
    """Serve a simulated provider until Ctrl-C: OpenAI's and Anthropic's protocols, and no model."""
    from asyncflow.testing import SimulatedProvider

    try:
        provider = SimulatedProvider(
            latency=latency,
            spread=spread,
            seconds_per_token=seconds_per_token,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            burst=burst,
            concurrency_limit=concurrency_limit,
            slope_limit=slope_limit,
            script=_script(script),
            faults=_faults(fault or []),
            seed=seed,
            log_size=0,
            port=port,
        )
        code = asyncio.run(_serve(provider, json))
    except (ValueError, OSError) as exc:
        print(f"asyncflow simulate: {_why(exc, port)}", file=sys.stderr)
        raise typer.Exit(2) from None
    raise typer.Exit(code)


def _why(error: Exception, port: int) -> str:
    if getattr(error, "errno", None) == errno.EADDRINUSE:
        return f"--port {port} is in use by another program; name another, or 0 for one that is free"
    return str(error)


def _faults(given: list[str]) -> dict[int | str, float]:
    """Shares by fault.

    Example:
        >>> _faults(["500=0.02", "hang=0.001"])
        {500: 0.02, 'hang': 0.001}
    """
    faults: dict[int | str, float] = {}
    for one in given:
        name, _, share = one.partition("=")
        try:
            faults[int(name) if name.isdecimal() else name] = float(share)
        except ValueError:
            raise ValueError(f"--fault {one}: a fault and its share are needed, such as 500=0.02") from None
    return faults


def _script(given: str) -> list[int | str | None]:
    """Faults in order; `-` leaves a request alone.

    Example:
        >>> _script("429,-,hang")
        [429, None, 'hang']
    """
    names = [name.strip() for name in given.split(",")] if given else []
    return [None if name == "-" else int(name) if name.isdecimal() else name for name in names]


async def _serve(provider: SimulatedProvider, as_json: bool) -> int:
    """Serve until a signal comes; returns the exit code."""
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def end(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    with suppress(NotImplementedError):  # Windows: there Ctrl-C is a KeyboardInterrupt
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            asyncio.get_running_loop().add_signal_handler(number, end, code)
    async with provider:
        _announce(provider, as_json)
        code = await ended
        seen: Any = provider.statistics()
    print(
        f"\n{seen.asked:,} requests: {seen.answered:,} answered, {sum(seen.refused.values()):,} refused, "
        f"{sum(seen.faults.values()):,} met a fault",
        file=sys.stderr,
    )
    return code


def _announce(provider: SimulatedProvider, as_json: bool) -> None:
    if as_json:
        urls = {"base_url": provider.base_url, "anthropic_base_url": provider.anthropic_base_url}
        print(json_module.dumps(urls), flush=True)
        return
    print(
        "Simulated provider: real HTTP, no model. Ctrl-C ends it.\n"
        f"  OPENAI_BASE_URL={provider.base_url}\n"
        f"  ANTHROPIC_BASE_URL={provider.anthropic_base_url}",
        flush=True,
    )
