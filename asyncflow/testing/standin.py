"""The text that a simulated provider answers with: simple rules, and always saying so."""

from __future__ import annotations

import json
import random

from asyncflow.testing.asked import Asked
from asyncflow.testing.from_schema import value_for
from asyncflow.testing.judging import judge_prompt, judging_asked
from asyncflow.testing.translation import language_asked, pseudo_translate, text_of

#: Put before a pseudo-translation, so that nobody takes it for one.
NOTICE = "<!-- stand-in, not a translation: asyncflow's simulated provider marked this text as {language} -->"


def stand_in(asked: Asked) -> str:
    """What the simulated provider answers when it was given no `reply` of the user's.

    JSON that satisfies the schema, where one was asked for; translations and judgements of résumés by rules;
    anything else gets a short text that says that no model
    was asked. The same question always gets the same answer.
    """
    if asked.schema is not None:
        rng = random.Random(f"{asked.prompt}|{asked.occurrence}")
        return json.dumps(value_for(asked.schema, rng), ensure_ascii=False)
    language = language_asked(asked.prompt, asked.system)
    if language is not None:
        return f"{NOTICE.format(language=language)}\n{pseudo_translate(text_of(asked.prompt), language)}"
    if judging_asked(f"{asked.system}\n{asked.prompt}"):
        return judge_prompt(f"{asked.system}\n{asked.prompt}" if asked.system else asked.prompt)
    words = len(asked.prompt.split())
    start = " ".join(asked.prompt.split()[:12])[:200]
    return f"Stand-in answer of a simulated provider; no model was asked. {words} words, beginning: {start}"
