"""A folder of résumés, each judged by a model (map), then summed up (reduce).

Shows a map-reduce: read → judge each, many at once → count. Answers are of a pydantic model; one that does
not fit is shown to whoever gave it and asked for again; a résumé that cannot be judged is reported, and the
others are still counted. asyncflow's simulated provider answers, by simple rules; no model is asked.

    python examples/resume_screening.py [folder of .txt files]     (by default twelve invented people)
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from asyncflow import AsyncFlow, AsyncParallelBatchNode, Failed, Node
from asyncflow.llm import LLMClient
from asyncflow.testing import SimulatedProvider

PROMPT = """Evaluate the following resume: does the candidate qualify for a technical role? Criteria: a
degree, at least 3 years of work, several technical skills.

Resume:
{text}"""


class Verdict(BaseModel):
    """What the model is to say about one résumé."""

    candidate_name: str
    qualifies: bool
    reasons: list[str]


class ReadResumes(Node):
    def prep(self, shared: dict[str, Any]) -> Path:
        return shared["folder"]

    def exec(self, folder: Path) -> dict[str, str]:
        return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt"))}

    def post(self, shared: dict[str, Any], prep_res: Path, resumes: dict[str, str]) -> None:
        shared["resumes"] = resumes


class EvaluateResumes(AsyncParallelBatchNode):
    on_error = "continue"

    def __init__(self, llm: LLMClient, **settings: Any) -> None:
        super().__init__(**settings)
        self.llm = llm

    async def prep_async(self, shared: dict[str, Any]) -> list[str]:
        return list(shared["resumes"].values())

    async def exec_async(self, text: str) -> Verdict:
        return (await self.llm.complete(PROMPT.format(text=text), schema=Verdict)).parsed

    async def post_async(
        self, shared: dict[str, Any], texts: list[str], results: list[Verdict | Failed]
    ) -> None:
        shared["evaluations"] = dict(zip(shared["resumes"], results, strict=True))


class ReduceResults(Node):
    def prep(self, shared: dict[str, Any]) -> dict[str, Any]:
        return shared["evaluations"]

    def exec(self, evaluations: dict[str, Any]) -> dict[str, Any]:
        judged = [one for one in evaluations.values() if not isinstance(one, Failed)]
        return {
            "judged": len(judged),
            "failed": [name for name, one in evaluations.items() if isinstance(one, Failed)],
            "qualified": [one.candidate_name for one in judged if one.qualifies],
        }

    def post(self, shared: dict[str, Any], prep_res: dict[str, Any], summary: dict[str, Any]) -> None:
        shared["summary"] = summary
        print(f"{summary['judged']} judged, {len(summary['qualified'])} qualify:")
        for name in summary["qualified"]:
            print(f"  {name}")
        for name in summary["failed"]:
            print(f"  could not be judged: {name}: {prep_res[name].error}")


def screening(llm: LLMClient) -> AsyncFlow:
    read = ReadResumes()
    read >> EvaluateResumes(llm, concurrency=16) >> ReduceResults()
    return AsyncFlow(start=read)


def make_resumes(folder: Path, people: int = 12) -> None:
    """Invented résumés: every third without a degree, every fourth with one year of work."""
    skills = ("Python", "SQL", "Linux", "Docker", "Rust", "Java")
    for n in range(people):
        degree = "" if n % 3 == 2 else "B.Sc. Computer Science\n"
        years = 1 if n % 4 == 3 else 3 + n % 8
        known = ", ".join((skills + skills)[n % 6 : n % 6 + 4])
        text = f"Name: Candidate {n + 1:02d}\n{degree}{years} years as an engineer\nSkills: {known}\n"
        (folder / f"resume_{n + 1:02d}.txt").write_text(text, encoding="utf-8")


async def screen(folder: Path, latency: float) -> dict[str, Any]:
    async with SimulatedProvider(latency=latency) as provider:
        async with LLMClient("simulated", base_url=provider.base_url, api_key="") as llm:
            shared: dict[str, Any] = {"folder": folder}
            await screening(llm).run_async(shared)
            print("Judged by the rules of a simulated provider; no model was asked.")
            return shared["summary"]


def main(folder: Path | None = None, latency: float = 0.2) -> dict[str, Any]:
    if folder is None:
        with tempfile.TemporaryDirectory() as made:
            make_resumes(Path(made))
            return main(Path(made), latency)
    return asyncio.run(screen(folder, latency))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
