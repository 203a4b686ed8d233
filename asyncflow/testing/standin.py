"""The text that a simulated provider answers with: simple rules, and always saying so."""

from __future__ import annotations

import json
import random
from typing import Any

from asyncflow.llm.json_schema import problems_of
from asyncflow.testing.asked import Asked, text_of_content
from asyncflow.testing.from_schema import value_for
from asyncflow.testing.judging import judge_prompt, judging_asked
from asyncflow.testing.translation import language_asked, pseudo_translate, text_of

#: Put before a pseudo-translation, so that nobody takes it for one.
NOTICE = "<!-- stand-in, not a translation: asyncflow's simulated provider marked this text as {language} -->"


def stand_in(asked: Asked) -> str:
    """What the simulated provider answers when it was given no `reply` of the user's.

    Translations and judgements of résumés by rules; where a schema was asked for, JSON that satisfies it (the
    judgement, if it does); anything else gets a short text that says that no model was asked. The same
    question always gets the same answer.
    """
    if asked.schema is not None:
        rng = random.Random(f"{asked.prompt}|{asked.occurrence}")
        value = _judged(asked)
        if value is None or problems_of(value, asked.schema):
            value = value_for(asked.schema, rng)
        return json.dumps(value, ensure_ascii=False)
    language = language_asked(asked.prompt, asked.system)
    if language is not None:
        return f"{NOTICE.format(language=language)}\n{pseudo_translate(text_of(asked.prompt), language)}"
    if judging_asked(f"{asked.system}\n{asked.prompt}"):
        return judge_prompt(f"{asked.system}\n{asked.prompt}" if asked.system else asked.prompt)
    words = len(asked.prompt.split())
    start = " ".join(asked.prompt.split()[:12])[:200]
    return f"Stand-in answer of a simulated provider; no model was asked. {words} words, beginning: {start}"


def _judged(asked: Asked) -> Any:
    """The judgement of a résumé that the conversation began with, as JSON holds it, or None."""
    first = next((one for one in asked.messages if one.get("role") == "user"), None)
    prompt = f"{asked.system}\n{text_of_content(first.get('content'))}" if isinstance(first, dict) else ""
    return json.loads(judge_prompt(prompt, yaml=False)) if judging_asked(prompt) else None
