"""The prompt's template: `{column}` stands for the row's value, `{{` and `}}` for a brace."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from asyncflow.cli.tables.values import as_text
from asyncflow.cli.usage import UsageError

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class Template:
    """A text with places for a row's values.

    A name is a column's name and nothing more: no attributes, indexes or format specifications, so a template
    reaches nothing but the row.

    Args:
        text: The template.

    Raises:
        UsageError: If it is empty, a brace is alone, or a place has no name.

    Attributes:
        columns: The columns it names, in the order in which they first come.

    Example:
        >>> template = Template("To {language}, as {{json}}: {text}")
        >>> template.columns
        ('language', 'text')
        >>> template.fill({"language": "French", "text": "Hello"})
        'To French, as {json}: Hello'
    """

    def __init__(self, text: str) -> None:
        if not text.strip():  # the usual reason: --prompt "$(cat a-file-that-is-not-there.txt)"
            raise UsageError("--prompt is empty; every row would be asked nothing")
        self._parts: list[str] = []  # text and column names in turn
        written, start = "", 0
        for found in _PART.finditer(text):
            written += text[start : found.start()]
            start = found.end()
            if found[0] in ("{{", "}}"):
                written += found[0][0]
            elif found[1]:
                self._parts += [written, found[1]]
                written = ""
            else:
                raise UsageError(
                    f"--prompt: {found[0]!r} at character {found.start() + 1} is no {{column}}; "
                    f"a brace that is meant as a brace is written twice"
                )
        self._end = written + text[start:]
        self.columns = tuple(dict.fromkeys(self._parts[1::2]))

    def fill(self, values: Mapping[str, Any]) -> str:
        """The text with a row's values in it.

        Text stands as it is, nothing at all for a null, and JSON for everything else.

        Raises:
            KeyError: If the row lacks a column.
        """
        parts = list(self._parts)
        parts[1::2] = [as_text(values[name]) for name in self._parts[1::2]]
        return "".join(parts) + self._end
