"""Judging a résumé by rules: degree, years, skills. A stand-in for a model, and no judge of people."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import date

_ASKED = re.compile(r"\b(?:resume|résumé|curriculum vitae|cv|candidate)\b", re.I)
_START = re.compile(
    r"^\W*(?:resume|résumé|cv|curriculum vitae|candidate)\b[^\n:]{0,40}:[ \t]*\n?", re.I | re.M
)
_END = re.compile(r"\n\W*(?:return|respond|reply|output|answer|format|give)\b", re.I)
_DEGREE = re.compile(
    r"\b(?:bachelor|master|doctora\w+|ph\.?\s?d|b\.?\s?sc|m\.?\s?sc|b\.?eng|m\.?eng|mba|diplom)(?:'?s)?\b",
    re.I,
)
_YEARS = re.compile(r"\b(\d{1,2})\s*\+?\s*(?:years|yrs)\b", re.I)
_SPAN = re.compile(
    r"\b((?:19|20)\d\d)\s*(?:-|–|—|to|until)\s*((?:19|20)\d\d|present|now|today|current)\b", re.I
)
_STUDIES = re.compile(r"university|college|school|degree|bachelor|master|b\.?sc|m\.?sc|ph\.?d", re.I)
_SKILL = re.compile(
    r"\b(?:python|java|javascript|typescript|c\+\+|rust|go|golang|sql|postgres\w*|kubernetes|docker|"
    r"aws|azure|gcp|linux|react|node\.?js|tensorflow|pytorch|machine learning|data engineering|"
    r"spark|git|ci/cd|terraform)(?!\w)",
    re.I,
)
_NEEDED = re.compile(r"at least (\d{1,2})\s*\+?\s*years", re.I)
_NAME = re.compile(r"^\W*(?:full )?name\W*:\s*(?P<name>[^\n]+)$", re.I | re.M)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say.

    Attributes:
        candidate_name: From a `Name:` line, else the first line.
        qualifies: Whether every criterion holds.
        reasons: One line per criterion.
    """

    candidate_name: str
    qualifies: bool
    reasons: tuple[str, ...]

    def as_yaml(self) -> str:
        """As the YAML block that prompts ask for; names and reasons are quoted, so any text is safe."""
        lines = [f"candidate_name: {json.dumps(self.candidate_name, ensure_ascii=False)}"]
        lines += [f"qualifies: {str(self.qualifies).lower()}", "reasons:"]
        lines += [f"  - {json.dumps(reason, ensure_ascii=False)}" for reason in self.reasons]
        return "```yaml\n" + "\n".join(lines) + "\n```"

    def as_json(self) -> str:
        """As a JSON object."""
        return json.dumps(
            {
                "candidate_name": self.candidate_name,
                "qualifies": self.qualifies,
                "reasons": list(self.reasons),
            },
            ensure_ascii=False,
        )


def judging_asked(prompt: str) -> bool:
    """Whether a prompt asks for a résumé to be judged.

    Example:
        >>> judging_asked("Evaluate the following resume and decide if the candidate qualifies.")
        True
        >>> judging_asked("Please resume the download.")
        False
    """
    head = prompt[:2000].lower()
    return bool(_ASKED.search(prompt)) and any(
        word in head for word in ("evaluat", "qualif", "judge", "assess", "screen", "suitab")
    )


def resume_of(prompt: str) -> str:
    """The résumé inside the prompt, or all of the prompt where nothing marks it."""
    start = _START.search(prompt)
    if start is None:
        return prompt
    text = prompt[start.end() :]
    end = _END.search(text)
    return text[: end.start()] if end else text


def judge(resume: str, *, years_needed: int = 3, skills_needed: int = 3) -> Verdict:
    """Judge by three rules: a degree, years of work, named technical skills.

    Years are the largest number of "n years" in the text, or the sum of year spans outside lines about
    studies, whichever is more.

    Example:
        >>> judge("Ada Lovelace\\nM.Sc. Mathematics\\n8 years of Python, SQL and Linux").qualifies
        True
    """
    years = max(
        max((int(found) for found in _YEARS.findall(resume)), default=0),
        sum(
            _length(span)
            for line in resume.split("\n")
            if not _STUDIES.search(line)
            for span in _SPAN.findall(line)
        ),
    )
    skills = sorted({found.lower() for found in _SKILL.findall(resume)})
    degree = _DEGREE.search(resume)
    checks = (
        (bool(degree), f"degree: {degree[0]}" if degree else "no degree is named"),
        (years >= years_needed, f"experience: {years} years, {years_needed} needed"),
        (
            len(skills) >= skills_needed,
            f"technical skills: {', '.join(skills[:6]) or 'none named'} ({skills_needed} needed)",
        ),
    )
    return Verdict(_name(resume), all(ok for ok, _ in checks), tuple(reason for _, reason in checks))


def judge_prompt(prompt: str, *, yaml: bool = True) -> str:
    """The answer to a prompt that asks for a judgement, as YAML where the prompt speaks of it, else JSON.

    Args:
        prompt: The prompt.
        yaml: Whether YAML may be the answer.
    """
    needed = _NEEDED.search(prompt)
    verdict = judge(resume_of(prompt), years_needed=int(needed[1]) if needed else 3)
    return verdict.as_yaml() if yaml and re.search(r"\byaml\b", prompt, re.I) else verdict.as_json()


def _name(resume: str) -> str:
    found = _NAME.search(resume)
    if found:
        return found["name"].strip(" *_#")
    first = next((line for line in resume.split("\n") if line.strip()), "unknown")
    return re.split(r"\s[-–—|]\s|,", first.strip(" *_#\t"))[0].strip(" *_#")[:80] or "unknown"


def _length(span: tuple[str, str]) -> int:
    start, end = span
    return max(0, (int(end) if end.isdigit() else date.today().year) - int(start))
