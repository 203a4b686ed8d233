"""The form of an answer in words, for servers without a mode of their own for it: pure functions.

DeepSeek and many models elsewhere refuse a request whose `response_format` is a JSON schema. The schema then
goes into the system text; the answer is read and checked as any other.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace

from asyncflow.errors import RequestRefusedError
from asyncflow.llm.ask import Ask

_MODE = re.compile(r"response[_ ]format|json_schema|output_config|output format|structured output", re.I)
_NONE = re.compile(
    r"unavailable|not (yet )?(supported|available|permitted|enabled)|n[o']t support|unsupported|"
    r"unknown variant|unrecognized|unexpected",
    re.I,
)
#: The mode is there, and the schema is wrong for it: that is for the user to know.
_WRONG = re.compile(r"invalid schema", re.I)


def has_no_mode(error: RequestRefusedError) -> bool:
    """Whether a request was refused because the server, or the model, has no mode for a JSON schema.

    Example:
        >>> has_no_mode(RequestRefusedError("400: This response_format type is unavailable now", status=400))
        True
        >>> has_no_mode(RequestRefusedError("400: Invalid schema for response_format: …", status=400))
        False
    """
    text = str(error)
    return (
        error.status in (400, 422)
        and bool(_MODE.search(text) and _NONE.search(text))
        and not _WRONG.search(text)
    )


def in_words(ask: Ask) -> Ask:
    """The same question, with its schema in the system text.

    Example:
        >>> print(in_words(Ask("m", (), "Be brief.", schema={"type": "object"})).system)
        Be brief.
        <BLANKLINE>
        Answer with JSON that satisfies this schema, and with nothing else:
        {"type": "object"}
    """
    told = (
        "Answer with JSON that satisfies this schema, and with nothing else:\n"
        f"{json.dumps(ask.schema, ensure_ascii=False)}"
    )
    return replace(ask, schema=None, system=told if ask.system is None else f"{ask.system}\n\n{told}")
