"""The demo's second program: a folder of résumés, each judged by itself (map), then summed up (reduce)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from asyncflow.graph.batch import AsyncParallelBatchNode
from asyncflow.graph.flow import AsyncFlow
from asyncflow.graph.node import Node
from asyncflow.llm import LLMClient
from asyncflow.outcome import Failed
from asyncflow.policy.retry import Retry

PROMPT = """Evaluate the following resume and decide whether the candidate qualifies for a technical role.
Criteria: a university degree, at least 3 years of relevant work, and several technical skills.

Resume:
{text}

Return a JSON object with "candidate_name" (a string), "qualifies" (true or false) and "reasons" (a list of
strings), and nothing else."""


class ReadResumes(Node):
    """Reads every .txt and .md file of shared["folder"] into shared["resumes"], by name."""

    def prep(self, shared: dict[str, Any]) -> Path:
        folder: Path = shared["folder"]
        return folder

    def exec(self, folder: Path) -> dict[str, str]:
        return {path.name: path.read_text(encoding="utf-8") for path in resumes_in(folder)}

    def post(self, shared: dict[str, Any], prep_res: Path, resumes: dict[str, str]) -> None:
        shared["resumes"] = resumes


class EvaluateResumes(AsyncParallelBatchNode):
    """One judgement per résumé. An answer that is not the JSON asked for is asked for again."""

    retry = Retry(attempts=3, wait=0.1, on=(ValueError, KeyError, TypeError))
    on_error = "continue"

    def __init__(self, llm: LLMClient, **settings: Any) -> None:
        super().__init__(**settings)
        self.llm = llm

    async def prep_async(self, shared: dict[str, Any]) -> list[tuple[str, str]]:
        return list(shared["resumes"].items())

    async def exec_async(self, item: tuple[str, str]) -> dict[str, Any]:
        name, text = item
        answer = (await self.llm.complete(PROMPT.format(text=text))).text
        verdict = json.loads(answer.strip().removeprefix("```json").removeprefix("```").removesuffix("```"))
        return {
            "file": name,
            "candidate": str(verdict["candidate_name"]),
            "qualifies": bool(verdict["qualifies"]),
            "reasons": [str(reason) for reason in verdict["reasons"]],
        }

    async def post_async(
        self, shared: dict[str, Any], prep_res: list[tuple[str, str]], results: list[Any]
    ) -> None:
        shared["evaluations"] = results


class ReduceResults(Node):
    """The summary of all judgements, in shared["summary"]."""

    def prep(self, shared: dict[str, Any]) -> list[Any]:
        evaluations: list[Any] = shared["evaluations"]
        return evaluations

    def exec(self, evaluations: list[Any]) -> dict[str, Any]:
        judged = [one for one in evaluations if not isinstance(one, Failed)]
        qualified = [one["candidate"] for one in judged if one["qualifies"]]
        return {
            "judged": len(judged),
            "failed": len(evaluations) - len(judged),
            "qualified": qualified,
            "share": len(qualified) / len(judged) if judged else 0.0,
        }

    def post(self, shared: dict[str, Any], prep_res: list[Any], summary: dict[str, Any]) -> None:
        shared["summary"] = summary


def resumes_in(folder: Path) -> list[Path]:
    """The .txt and .md files of a folder, by name."""
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in (".txt", ".md") and path.is_file()
    )


def screening(llm: LLMClient, concurrency: int = 64) -> AsyncFlow:
    """The flow: read, judge each, sum up."""
    read = ReadResumes()
    read >> EvaluateResumes(llm, concurrency=concurrency) >> ReduceResults()
    return AsyncFlow(start=read)
