"""What a model is told when its answer did not have the form asked for: a pure function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from asyncflow.llm.ask import Ask

_MOST = 10


def reask(ask: Ask, text: str, problems: Sequence[str]) -> Ask:
    """The same question, followed by the answer it got and what is wrong with that.

    Example:
        >>> asked = Ask("m", ({"role": "user", "content": "A number?"},))
        >>> print(reask(asked, '{"n": "x"}', ["$.n: not an integer"]).messages[-1]["content"])
        Your answer does not have the form that was asked for:
        - $.n: not an integer
        Answer again, with JSON of that form and nothing else.
    """
    shown = [f"- {problem}" for problem in problems[:_MOST]]
    if len(problems) > _MOST:
        shown.append(f"- and {len(problems) - _MOST} more")
    told = "\n".join(
        [
            "Your answer does not have the form that was asked for:",
            *shown,
            "Answer again, with JSON of that form and nothing else.",
        ]
    )
    # An empty assistant message is refused by some providers.
    answered = {"role": "assistant", "content": text or "(nothing)"}
    return replace(ask, messages=(*ask.messages, answered, {"role": "user", "content": told}))
