"""Chat calls to a fast local server: requests per second, as ratios to plain aiohttp in the same run.

    python -m tests.benchmarks.http_calls [--seconds 2] [--repeat 3] [--at 64 500 1000] [--sdk PYTHON …]

The server runs in a process of its own and answers a fixed chat completion, so the client is what is
measured. Every way makes the same calls with the same number at once, from as many workers, in turns, and
the best of `repeat` turns counts. `ratio` is to plain aiohttp, `kept` to the same way at the first number at
once. CPU is the client process's own, per request. Peers that are not installed are named at the end.

"all at once" is `concurrency=None`: as many calls on the wire as there are workers. Without it `LLMClient`
finds the number itself.

The OpenAI SDK is on httpx up to version 2, and on httpx2 from 3 on; an environment holds one of them. `--sdk`
takes the interpreters of others, whose turns are then a process each:

    python -m venv /tmp/sdk2 && /tmp/sdk2/bin/pip install openai==2.54.0
    python -m tests.benchmarks.http_calls --sdk /tmp/sdk2/bin/python
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

BODY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "word " * 60}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 50, "completion_tokens": 60, "total_tokens": 110},
    }
).encode()
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: req-1\r\n"
    + f"Content-Length: {len(BODY)}\r\n\r\n".encode()
    + BODY
)
PROMPT = "Translate to French: " + "the quick brown fox jumps over the lazy dog " * 5
MESSAGES = [{"role": "user", "content": PROMPT}]

Call = Callable[[], Awaitable[object]]
#: Requests per second, and CPU microseconds per request.
Measured = tuple[float, float]


class Fast(asyncio.Protocol):
    """Answers each request as soon as its body is there. Knows just enough HTTP for these clients."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[:end].lower()
            start = head.find(b"content-length:")
            size = int(head[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
            if len(self.buffer) < end + 4 + size:
                return
            self.buffer = self.buffer[end + 4 + size :]
            self.transport.write(ANSWER)  # type: ignore[attr-defined]


def serve() -> None:
    try:
        from uvloop import run
    except ImportError:
        from asyncio import run

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Fast, "127.0.0.1", 0, backlog=4096)
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the parent is gone

    run(main())


@asynccontextmanager
async def plain_aiohttp(url: str) -> AsyncIterator[Call]:
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        headers = {"authorization": "Bearer k"}

        async def call() -> object:
            body = {"model": "m", "messages": MESSAGES}
            async with session.post(f"{url}/chat/completions", json=body, headers=headers) as response:
                return (await response.json())["choices"][0]["message"]["content"]

        yield call


@asynccontextmanager
async def our_client(url: str, **options: Any) -> AsyncIterator[Call]:
    from asyncflow.llm import LLMClient

    async with LLMClient("m", base_url=url, api_key="k", **options) as llm:

        async def call() -> object:
            return (await llm.complete(PROMPT)).text

        yield call


@asynccontextmanager
async def our_http(url: str) -> AsyncIterator[Call]:
    from asyncflow.http import HTTPClient

    async with HTTPClient(base_url=url, headers={"authorization": "Bearer k"}) as http:

        async def call() -> object:
            body = {"model": "m", "messages": MESSAGES}
            response = await http.post("/chat/completions", json=body)
            return response.json()["choices"][0]["message"]["content"]

        yield call


@asynccontextmanager
async def plain_httpx(url: str) -> AsyncIterator[Call]:
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:

        async def call() -> object:
            response = await client.post(f"{url}/chat/completions", json={"model": "m", "messages": MESSAGES})
            return response.json()["choices"][0]["message"]["content"]

        yield call


@asynccontextmanager
async def openai_sdk(url: str) -> AsyncIterator[Call]:
    import openai

    async with openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0, timeout=60) as client:

        async def call() -> object:
            answer = await client.chat.completions.create(model="m", messages=MESSAGES)  # type: ignore[arg-type]
            return answer.choices[0].message.content

        yield call


WAYS = {
    "plain aiohttp": plain_aiohttp,
    "asyncflow LLMClient": our_client,
    "LLMClient, all at once": partial(our_client, concurrency=None),
    "asyncflow HTTPClient": our_http,
    "plain httpx": plain_httpx,
}


def sdk_name() -> str:
    """The SDK of this environment, and what it stands on."""
    try:
        number = version("openai")
    except PackageNotFoundError:
        return "openai SDK"
    beneath = "httpx" if int(number.partition(".")[0]) < 3 else "httpx2"
    return f"openai {number}, {beneath}"


async def measure(call: Call, at_once: int, seconds: float) -> Measured:
    """One turn."""
    done = 0
    stop = False

    async def worker() -> None:
        nonlocal done
        while not stop:
            await call()
            done += 1

    workers = [asyncio.create_task(worker()) for _ in range(at_once)]
    await asyncio.sleep(0.3 * seconds)  # connections stand, caches are warm
    first, started, cpu = done, time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    took, cpu, counted = time.perf_counter() - started, time.process_time() - cpu, done - first
    stop = True
    await asyncio.gather(*workers)
    return counted / took, cpu / max(counted, 1) * 1e6


async def sdk_turn(url: str, at_once: int, seconds: float) -> None:
    """One turn of this environment's SDK, printed for the process that started it."""
    async with openai_sdk(url) as call:
        print(json.dumps([sdk_name(), *await measure(call, at_once, seconds)]))


async def elsewhere(python: str, url: str, at_once: int, seconds: float) -> tuple[str, Measured]:
    """One turn of another environment's SDK."""
    options = ["--sdk-turn", url, "--at", str(at_once), "--seconds", str(seconds)]
    process = await asyncio.create_subprocess_exec(
        python, os.path.abspath(__file__), *options, stdout=subprocess.PIPE
    )
    printed, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"{python}: no turn of its OpenAI SDK, exit code {process.returncode}")
    name, rate, cpu = json.loads(printed)
    return name, (rate, cpu)


async def compare(
    url: str, at: list[int], seconds: float, repeat: int, slow_at: int, sdks: list[str]
) -> None:
    print(f"{'at once':>8}  {'way':<24}{'req/s':>9}{'ratio':>8}{'kept':>8}{'CPU µs':>9}")
    missing: dict[str, str] = {}
    first: dict[str, float] = {}
    for at_once in at:
        async with AsyncExitStack() as stack:
            ways = {**WAYS, sdk_name(): openai_sdk}
            slow = ("plain httpx", sdk_name())  # or they take minutes, or fail, with many at once
            calls: dict[str, Call] = {}
            for name, way in ways.items():
                if at_once > slow_at and name in slow:
                    continue
                try:
                    calls[name] = await stack.enter_async_context(way(url))
                except ImportError as exc:
                    missing[name] = str(exc)
            best: dict[str, Measured] = {}
            for _ in range(repeat):
                for name, call in calls.items():
                    best[name] = max(best.get(name, (0.0, 0.0)), await measure(call, at_once, seconds))
                for python in sdks if at_once <= slow_at else ():
                    name, measured = await elsewhere(python, url, at_once, seconds)
                    best[name] = max(best.get(name, (0.0, 0.0)), measured)
        base = best["plain aiohttp"][0]
        for name, (rate, cpu) in best.items():
            kept = rate / first.setdefault(name, rate)
            print(
                f"{at_once:>8}  {name:<24}{rate:>9,.0f}{rate / base:>8.3f}{kept:>8.3f}{cpu:>9,.0f}",
                flush=True,
            )
    for name, why in missing.items():
        print(f"not installed: {name} ({why})")
    if not sdks:
        print("no other OpenAI SDK was measured: name interpreters that have one with --sdk")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--at", type=int, nargs="+", default=[64, 500, 1000])
    parser.add_argument("--slow-at", type=int, default=64, help="most at once for httpx's own pool")
    parser.add_argument("--sdk", nargs="+", default=[], metavar="PYTHON", help="others with an OpenAI SDK")
    parser.add_argument("--sdk-turn", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve()
    if options.sdk_turn:
        return asyncio.run(sdk_turn(options.sdk_turn, options.at[0], options.seconds))
    server = subprocess.Popen(
        [sys.executable, os.path.abspath(__file__), "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdout is not None and server.stdin is not None
    try:
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        asyncio.run(compare(url, options.at, options.seconds, options.repeat, options.slow_at, options.sdk))
    finally:
        server.stdin.close()
        server.wait(5)


if __name__ == "__main__":
    main()
