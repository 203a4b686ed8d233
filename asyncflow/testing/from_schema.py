"""A JSON value that satisfies a schema: for a provider that is asked for structured output."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Mapping
from typing import Any

from asyncflow.llm.json_schema import problems_of, resolve
from asyncflow.testing.from_pattern import text_for

_WORDS = "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima".split()  # noqa: SIM905
_FORMATS = {
    "date": "2026-01-02",
    "date-time": "2026-01-02T03:04:05Z",
    "time": "03:04:05Z",
    "email": "someone@example.org",
    "uri": "https://example.org/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri-reference": "/example",
    "hostname": "example.org",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "duration": "P1D",
    "json-pointer": "/a",
    "regex": "a",
    "byte": "YWJj",
    "binary": "abc",
}
#: Demands that a client says in a description, because the provider's own mode does not take them.
_TOLD = re.compile(r"Must satisfy (\{.*\})", re.S)
#: Beyond this depth only what is required is filled in, so that recursive schemas end.
_DEEP = 4


def value_for(schema: Any, rng: random.Random) -> Any:
    """A value that satisfies the schema, the same for the same state of `rng`.

    Demands that contradict each other, and a `not` or a pattern that is hard to meet by trying, are not met.

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
    told = _TOLD.search(str(schema.get("description", "")))
    if told:
        schema = {**schema, **json.loads(told[1]), "description": ""}
    if "$ref" in schema:
        there = resolve(schema["$ref"], root)
        beside = {name: part for name, part in schema.items() if name not in ("$ref", "$defs", "definitions")}
        return _value(_merged(beside, there, "") if beside else there, root, rng, depth + 1)
    if "not" in schema:
        return _other_than(schema, root, rng, depth)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        fitting = [one for one in schema["enum"] if not problems_of(one, schema, root)]
        return rng.choice(fitting or list(schema["enum"]))
    for name in ("anyOf", "oneOf"):
        if name in schema:
            choices = schema[name]
            choice = min(choices, key=_weight) if depth > _DEEP else rng.choice(choices)
            return _value(_merged(schema, choice, name), root, rng, depth + 1)
    if "allOf" in schema:
        merged: Mapping[str, Any] = {name: part for name, part in schema.items() if name != "allOf"}
        for part in schema["allOf"]:
            part = resolve(part["$ref"], root) if "$ref" in part else part
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


def _other_than(schema: Mapping[str, Any], root: Any, rng: random.Random, depth: int) -> Any:
    """A value that is not what `not` says, found by trying."""
    rest = {name: part for name, part in schema.items() if name != "not"}
    value = None
    for kind in ("", "integer", "string", "boolean", "null", "object", "array") * 3:
        value = _value({**rest, "type": kind} if kind and "type" not in rest else rest, root, rng, depth + 1)
        if not problems_of(value, schema, root):
            break
    return value


def _object(schema: Mapping[str, Any], root: Any, rng: random.Random, depth: int) -> dict[str, Any]:
    required = schema.get("required", ())
    properties = schema.get("properties", {})
    names = [name for name in properties if name in required or depth <= _DEEP]
    names += [name for name in required if name not in properties]
    names += [name for name in properties if name not in names][: schema.get("minProperties", 0)]
    if len(names) > schema.get("maxProperties", math.inf):
        names = [name for name in names if name in required]
    made = {name: _value(properties.get(name, {}), root, rng, depth + 1) for name in names}
    more = schema.get("additionalProperties", {})
    for word in _WORDS:
        if len(made) >= schema.get("minProperties", 0) or more is False:
            break
        made.setdefault(word, _value(more, root, rng, depth + 1))
    return made


def _array(schema: Mapping[str, Any], root: Any, rng: random.Random, depth: int) -> list[Any]:
    first = list(schema.get("prefixItems", ()))
    least = int(schema.get("minItems", 0 if depth > _DEEP else 1))
    most = schema.get("maxItems", max(least, len(first)) + 2)
    size = max(len(first), rng.randint(least, max(least, min(int(most), least + 2))))
    made: list[Any] = []
    for place in range(size):
        part = first[place] if place < len(first) else schema.get("items", {})
        one = _value(part, root, rng, depth + 1)
        for _ in range(100 if schema.get("uniqueItems") else 0):
            if one not in made:
                break
            one = _value(part, root, rng, depth + 1)
        if schema.get("uniqueItems") and one in made and len(made) >= least:
            break  # there are not so many different ones
        made.append(one)
    if "contains" in schema and made:
        made[-1] = _value(schema["contains"], root, rng, depth + 1)
    return made


def _number(schema: Mapping[str, Any], rng: random.Random, *, whole: bool) -> float:
    """A number within all bounds: the tightest of `minimum` and `exclusiveMinimum` counts."""
    low = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf))
    high = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf))
    if low == -math.inf:
        low = 0 if high == math.inf or high > 0 else high - 100
    if high == math.inf:
        high = low + 100
    least_out = low <= schema.get("exclusiveMinimum", -math.inf)
    most_out = high >= schema.get("exclusiveMaximum", math.inf)
    step = schema.get("multipleOf") or (1 if whole else None)
    if step:
        start = math.ceil(low / step)
        start += least_out and start * step <= low
        end = math.floor(high / step)
        end -= most_out and end * step >= high
        times = rng.randint(start, max(start, min(end, start + 100)))
        return int(times * step) if whole else float(times * step)
    if not (least_out or most_out) and low == high:
        return float(low)
    drawn = float(low + (high - low) * rng.uniform(0.01, 0.99))
    short = round(drawn, 6)
    return short if low < short < high else drawn


def _text(schema: Mapping[str, Any], rng: random.Random) -> str:
    least, most = schema.get("minLength", 0), schema.get("maxLength", math.inf)
    if "pattern" in schema:
        for wanted in (least, 0):
            found = text_for(schema["pattern"], rng, wanted)
            if found is not None and least <= len(found) <= most:
                return found
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    text = " ".join(rng.choice(_WORDS) for _ in range(3))
    while len(text) < least:
        text += " " + rng.choice(_WORDS)
    return text[: None if most == math.inf else int(most)]


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
