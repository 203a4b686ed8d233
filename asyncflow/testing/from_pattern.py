"""A text that matches a regular expression, for a provider that is asked for one.

Follows Python's own parse of the pattern. Look-around, back references to what did not take part, and word
boundaries are not followed; the caller checks what came out.
"""

from __future__ import annotations

import random
import re
import string

# Python has no public parser of patterns; this one has been there, under this and an older name, since 2.0.
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

#: What a character class may become, most readable first.
_PLAIN = string.ascii_lowercase + string.ascii_uppercase + string.digits
_USUAL = _PLAIN + " _" + string.punctuation.replace("_", "") + "\t\n"
_CATEGORIES = {
    "CATEGORY_DIGIT": string.digits,
    "CATEGORY_WORD": string.ascii_lowercase + string.digits + "_",
    "CATEGORY_SPACE": " ",
}
_MORE = 3


def text_for(pattern: str, rng: random.Random, least: int = 0) -> str | None:
    """A text in which the pattern is found, or None where none was found in a few tries.

    Args:
        pattern: A regular expression.
        rng: Where the choice comes from.
        least: The shortest text wanted, as far as the pattern's own repetitions allow.

    Example:
        >>> text_for("^[A-Z]{2}-[0-9]+$", random.Random(1))
        'SZ-4'
    """
    try:
        parsed = _parser.parse(pattern)
    except re.error:
        return None
    for tries in range(20):
        groups: dict[int, str] = {}
        text = _all(parsed, rng, groups, least if tries < 10 else 0)
        if re.search(pattern, text) and (len(text) >= least or tries >= 10):
            return text
    return None


def _one(kind: Any, value: Any, rng: random.Random, groups: dict[int, str], least: int) -> str:
    name = str(kind)
    if name == "LITERAL":
        return chr(value)
    if name == "NOT_LITERAL":
        return rng.choice([one for one in _USUAL[:36] if ord(one) != value])
    if name == "ANY":
        return rng.choice(string.ascii_lowercase)
    if name == "IN":
        return rng.choice(_members(value))
    if name == "BRANCH":
        return _all(rng.choice(value[1]), rng, groups, least)
    if name == "SUBPATTERN":
        text = _all(value[3], rng, groups, least)
        if value[0] is not None:
            groups[value[0]] = text
        return text
    if name == "ATOMIC_GROUP":
        return _all(value, rng, groups, least)
    if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        low, high, inner = value
        high = max(low + _MORE, least) if high is _constants.MAXREPEAT else high
        times = rng.randint(max(low, min(high, least)), max(low, min(high, max(low + _MORE, least))))
        return "".join(_all(inner, rng, groups, 0) for _ in range(times))
    if name == "GROUPREF":
        return groups.get(value, "")
    return ""  # anchors, look-around


def _all(parts: Any, rng: random.Random, groups: dict[int, str], least: int) -> str:
    return "".join(_one(kind, value, rng, groups, least) for kind, value in parts)


def _members(items: list[tuple[Any, Any]]) -> list[str]:
    """The characters of a class: of a large one, the usual ones."""
    refused = str(items[0][0]) == "NEGATE"
    found: list[str] = []
    for kind, value in items:
        if str(kind) == "LITERAL":
            found.append(chr(value))
        elif str(kind) == "RANGE":
            found += [chr(code) for code in range(value[0], min(value[1], value[0] + 200) + 1)]
        elif str(kind) == "CATEGORY":
            name = str(value)
            known = _CATEGORIES.get(name.replace("_NOT_", "_"), "")
            found += [one for one in _USUAL if one not in known] if "_NOT_" in name else known
    if refused:
        left = [one for one in _USUAL if one not in found]
        found = [one for one in left if one in _PLAIN] or left
    return found or ["a"]
