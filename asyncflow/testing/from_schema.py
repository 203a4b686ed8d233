"""A JSON value that satisfies a schema: for a provider that is asked for structured output."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

_WORDS = "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima".split()  # noqa: SIM905
_FORMATS = {
    "date": "2026-01-02",
    "date-time": "2026-01-02T03:04:05Z",
    "time": "03:04:05Z",
    "email": "someone@example.org",
    "uri": "https://example.org/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "duration": "P1D",
}
#: Beyond this depth only what is required is filled in, so that recursive schemas end.
_DEEP = 4


def value_for(schema: Any, rng: random.Random) -> Any:
    """A value that satisfies the schema, the same for the same state of `rng`.

    `pattern` and `not` are not followed: no value is found for them except by luck.

    Example:
        >>> schema = {"type": "array", "items": {"enum": ["a"]}, "minItems": 2, "maxItems": 2}
        >>> value_for(schema, random.Random(0))
        ['a', 'a']
    """
    return _value(schema, schema, rng, 0)


def _value(schema: Any, root: Any, rng: random.Random, depth: int) -> Any:
    if not isinstance(schema, Mapping) or not schema:
        return rng.choice(_WORDS)
    if depth > 60:
        raise ValueError("the schema has no finite value")
    if "$ref" in schema:
        return _value(_resolve(schema["$ref"], root), root, rng, depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(list(schema["enum"]))
    for name in ("anyOf", "oneOf"):
        if name in schema:
            choices = schema[name]
            choice = min(choices, key=_weight) if depth > _DEEP else rng.choice(choices)
            return _value(_merged(schema, choice, name), root, rng, depth + 1)
    if "allOf" in schema:
        merged: Mapping[str, Any] = {name: part for name, part in schema.items() if name != "allOf"}
        for part in schema["allOf"]:
            part = _resolve(part["$ref"], root) if "$ref" in part else part
            merged = _merged(merged, part, "allOf")
        return _value(merged, root, rng, depth + 1)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if depth <= _DEEP or "null" not in kind else "null"
    if kind == "object" or (kind is None and "properties" in schema):
        return _object(schema, root, rng, depth)
    if kind == "array" or (kind is None and "items" in schema):
        return _array(schema, root, rng, depth)
    if kind in ("integer", "number"):
        return _number(schema, rng, whole=kind == "integer")
    if kind == "boolean":
        return rng.random() < 0.5
    return None if kind == "null" else _text(schema, rng)


def _object(schema: Mapping[str, Any], root: Any, rng: random.Random, depth: int) -> dict[str, Any]:
    required = schema.get("required", ())
    properties = schema.get("properties", {})
    names = [name for name in properties if name in required or depth <= _DEEP]
    names += [name for name in required if name not in properties]
    return {name: _value(properties.get(name, {}), root, rng, depth + 1) for name in names}


def _array(schema: Mapping[str, Any], root: Any, rng: random.Random, depth: int) -> list[Any]:
    first = list(schema.get("prefixItems", ()))
    least = int(schema.get("minItems", 0 if depth > _DEEP else 1))
    size = max(
        len(first), rng.randint(least, max(least, min(int(schema.get("maxItems", least + 2)), least + 2)))
    )
    rest = schema.get("items", {})
    return [
        _value(first[place] if place < len(first) else rest, root, rng, depth + 1) for place in range(size)
    ]


def _number(schema: Mapping[str, Any], rng: random.Random, *, whole: bool) -> float:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None:
        low = 0 if high is None else high - 100
    if high is None:
        high = low + 100
    step = schema.get("multipleOf")
    if step:
        return float(step) * round((low + high) / 2 / step) if not whole else int(step * -(-low // step))
    if not whole:
        return float(round(low + (high - low) * rng.uniform(0.01, 0.99), 6))
    start = int(low) + ("exclusiveMinimum" in schema and "minimum" not in schema)
    end = int(high) - ("exclusiveMaximum" in schema and "maximum" not in schema)
    return rng.randint(start, max(start, end))


def _text(schema: Mapping[str, Any], rng: random.Random) -> str:
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    text = " ".join(rng.choice(_WORDS) for _ in range(3))
    while len(text) < schema.get("minLength", 0):
        text += " " + rng.choice(_WORDS)
    return text[: schema.get("maxLength", len(text))]


def _merged(schema: Mapping[str, Any], part: Any, without: str) -> dict[str, Any]:
    """Both schemas at once, as far as objects go."""
    merged = {name: value for name, value in schema.items() if name != without}
    for name, value in part.items() if isinstance(part, Mapping) else ():
        old = merged.get(name)
        if name == "properties" and isinstance(old, Mapping):
            merged[name] = {**old, **value}
        elif name == "required" and old is not None:
            merged[name] = [*old, *value]
        else:
            merged[name] = value
    return merged


def _weight(schema: Any) -> int:
    """How much there is to fill in: an end of a recursion is light."""
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    return {"null": 0, "boolean": 1, "integer": 1, "number": 1, "string": 1, "array": 2}.get(str(kind), 3)


def _resolve(ref: str, root: Any) -> Any:
    found = root
    for part in ref.removeprefix("#").split("/"):
        if part:
            found = found[part.replace("~1", "/").replace("~0", "~")]
    return found
