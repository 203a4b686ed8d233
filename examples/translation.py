"""One text into eight languages, in turn and then at once: the same node with one number different.

Shows a parallel batch node whose `exec` asks a model. By default that is asyncflow's simulated provider, a
real HTTP server on this machine with real waits but no model: it marks texts instead of translating them.

    python examples/translation.py [--file FILE] [--output FOLDER]
    python examples/translation.py --model gpt-5-mini

With `--model` it asks OPENAI_BASE_URL with OPENAI_API_KEY, after saying how many calls it makes. They cost
money.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from asyncflow import AsyncParallelBatchNode
from asyncflow.llm import LLMClient
from asyncflow.testing import SimulatedProvider

LANGUAGES = ("Chinese", "Spanish", "Japanese", "German", "Russian", "Portuguese", "French", "Korean")
TEXT = """# Batches

A batch is many things of one kind, done together:

- a thousand letters, one walk to the post office
- one text, eight languages
"""


class TranslateText(AsyncParallelBatchNode):
    """`shared`: reads "text", "languages" and "output" (a folder), writes "files", a path per language."""

    def __init__(self, llm: LLMClient, **settings: Any) -> None:
        super().__init__(**settings)
        self.llm = llm

    async def prep_async(self, shared: dict[str, Any]) -> list[tuple[str, str]]:
        return [(shared["text"], language) for language in shared["languages"]]

    async def exec_async(self, item: tuple[str, str]) -> str:
        text, language = item
        answer = await self.llm.complete(
            f"Translate the following Markdown into {language}. Keep its structure, and return only the "
            f"translation.\n\nOriginal:\n{text}"
        )
        return answer.text

    async def post_async(self, shared: dict[str, Any], items: list[Any], texts: list[str]) -> None:
        shared["output"].mkdir(parents=True, exist_ok=True)
        shared["files"] = []
        for (_, language), text in zip(items, texts, strict=True):
            path = shared["output"] / f"text_{language.lower()}.md"
            path.write_text(text + "\n", encoding="utf-8")
            shared["files"].append(path)


async def translate(text: str, output: Path, model: str | None, latency: float) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        if model is None:
            provider = await stack.enter_async_context(SimulatedProvider(latency=latency))
            llm = LLMClient("simulated", base_url=provider.base_url, api_key="")
            print("The replies come from the simulated provider: marked texts, no translations.")
        else:
            llm = LLMClient(model)
            print(f"Asking {model} at {llm.base_url}: {2 * len(LANGUAGES)} calls, which cost money.")
        await stack.enter_async_context(llm)
        seconds = {}
        for concurrency in (1, len(LANGUAGES)):
            shared: dict[str, Any] = {"text": text, "languages": LANGUAGES, "output": output}
            began = time.perf_counter()
            await TranslateText(llm, concurrency=concurrency).run_async(shared)
            seconds[concurrency] = time.perf_counter() - began
            print(f"concurrency={concurrency}: {len(LANGUAGES)} languages in {seconds[concurrency]:.2f} s")
        print(f"one file per language in {output}; {llm.statistics().calls} calls")
    return {"files": shared["files"], "seconds": seconds, "calls": llm.statistics().calls}


def main(
    text: str = TEXT, output: Path | None = None, model: str | None = None, latency: float = 0.2
) -> dict[str, Any]:
    if output is None:
        output = Path(tempfile.mkdtemp(prefix="translations-"))
    return asyncio.run(translate(text, Path(output), model, latency))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Translate a text into eight languages.")
    parser.add_argument("--file", type=Path, help="a Markdown file; by default a few lines of this program's")
    parser.add_argument("--output", type=Path, help="a folder; by default a new one for temporary files")
    parser.add_argument("--model", help="ask this model; it costs money")
    given = parser.parse_args()
    main(given.file.read_text(encoding="utf-8") if given.file else TEXT, given.output, given.model)
