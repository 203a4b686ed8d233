"""A pseudo-translation by rules: marks the language, keeps the Markdown. Nothing is translated."""

from __future__ import annotations

import re

_ASKED = re.compile(
    r"\b(?i:translat(?:e|es|ed|ing|ion|or))\b.{0,400}?\b(?:in)?to\s+"
    r"(?P<language>[A-Z][\w()'-]*(?: [A-Z(][\w()'-]*)*)",
    re.S,
)
_START = re.compile(r"^\W*(?:original|text|source|markdown|input|document)\b[^\n]{0,40}:\s*", re.I | re.M)
_END = re.compile(r"\n\W*(?:translated|translation)\b[^\n]{0,40}:\s*\Z", re.I)
_FENCE = re.compile(r"\s*(```|~~~)")
_LEAD = re.compile(r"\s*(?:#{1,6}\s+|[-*+]\s+(?:\[[ xX]\]\s+)?|\d+[.)]\s+|>\s*)*")
_AS_IT_IS = re.compile(r"\s*(?:\||<|!\[|\[[^\]]+\]:|[-*_=]{3,}\s*$|$)")


def language_asked(prompt: str, system: str = "") -> str | None:
    """The language that a translation into is asked for, or None.

    Example:
        >>> language_asked("Please translate the following file into Brazilian Portuguese.")
        'Brazilian Portuguese'
        >>> language_asked("What is a translation?") is None
        True
    """
    found = _ASKED.search(prompt) or _ASKED.search(system)
    return found["language"] if found else None


def text_of(prompt: str) -> str:
    """The text to translate, without the instruction around it.

    Example:
        >>> text_of("Translate to French: Good morning")
        'Good morning'
        >>> text_of("Translate to French.\\n\\nOriginal:\\n# Hi\\n\\nTranslated:")
        '# Hi'
    """
    asked = _ASKED.search(prompt)
    if asked is None:
        return prompt.strip("\n")
    after = prompt[asked.end() :]
    start = _START.search(after)
    if start is not None:
        return _END.sub("", after[start.end() :]).strip("\n")
    line, _, rest = after.partition("\n")
    if ":" in line and line.partition(":")[2].strip():
        return _END.sub("", after.partition(":")[2]).strip()
    _, blank, paragraph = after.partition("\n\n")
    return _END.sub("", paragraph if blank else rest or line).strip("\n")


def pseudo_translate(text: str, language: str) -> str:
    """The Markdown with each piece of running text marked `[language]`, everything else as it was.

    Code blocks, tables, HTML, images, link definitions and rules stay untouched; a heading, list item or
    quotation keeps its sign, and a paragraph is marked once, at its start.

    Example:
        >>> print(pseudo_translate("# Title\\n\\nSome\\ntext.\\n\\n- item", "French"))
        # [French] Title
        <BLANKLINE>
        [French] Some
        text.
        <BLANKLINE>
        - [French] item
    """
    lines, fence, inside = [], "", False
    for line in text.split("\n"):
        opening = _FENCE.match(line)
        if opening and (not fence or opening[1] == fence):
            fence = "" if fence else opening[1]
            inside = False
        elif not fence and _AS_IT_IS.match(line):
            inside = False
        elif not fence:
            lead = _LEAD.match(line)
            sign = lead[0] if lead else ""
            if sign.strip() or not inside:
                line = f"{sign}[{language}] {line[len(sign) :]}"
            inside = not sign.lstrip().startswith("#")
        lines.append(line)
    return "\n".join(lines)
