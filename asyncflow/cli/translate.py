"""The demo's first program: a Markdown document into several languages, in turn or at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from asyncflow.graph.batch import AsyncBatchNode, AsyncParallelBatchNode
from asyncflow.llm import LLMClient

LANGUAGES = ("Chinese", "Spanish", "Japanese", "German", "Russian", "Portuguese", "French", "Korean")


class TranslateInTurn(AsyncBatchNode):
    """Every section into every language, one call after the other.

    `shared`: reads "sections" (texts), "languages" and "output" (a folder), writes one file per language and
    their paths to "files".
    """

    def __init__(self, llm: LLMClient, **settings: Any) -> None:
        super().__init__(**settings)
        self.llm = llm

    async def prep_async(self, shared: dict[str, Any]) -> list[tuple[str, str]]:
        return [(language, section) for language in shared["languages"] for section in shared["sections"]]

    async def exec_async(self, item: tuple[str, str]) -> str:
        language, section = item
        completion = await self.llm.complete(
            f"Translate the following Markdown into {language}. Keep its structure, leave code as it is, and "
            f"return only the translation.\n\nOriginal:\n{section}"
        )
        return completion.text

    async def post_async(
        self, shared: dict[str, Any], prep_res: list[tuple[str, str]], texts: list[str]
    ) -> None:
        folder: Path = shared["output"]
        folder.mkdir(parents=True, exist_ok=True)
        shared["files"] = []
        for language in shared["languages"]:
            translated = [text for (into, _), text in zip(prep_res, texts, strict=True) if into == language]
            path = folder / f"README.{language.lower()}.md"
            path.write_text("\n\n".join(translated) + "\n", encoding="utf-8")
            shared["files"].append(path)


class TranslateAtOnce(TranslateInTurn, AsyncParallelBatchNode):
    """The same with many calls at once: one number is different."""

    concurrency = 64


def sections_of(markdown: str) -> list[str]:
    """A document cut before each heading of the first three levels; fenced code is never cut.

    Example:
        >>> sections_of("# One\\ntext\\n## Two\\n```\\n# not a heading\\n```")
        ['# One\\ntext', '## Two\\n```\\n# not a heading\\n```']
    """
    sections: list[list[str]] = [[]]
    fenced = False
    for line in markdown.splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        if re.match(r"#{1,3} ", line) and not fenced and any(sections[-1]):
            sections.append([])
        sections[-1].append(line)
    return [text for text in ("\n".join(lines).strip() for lines in sections) if text]
