"""A schema in the shape that providers' own modes for structured output take: pure functions.

Providers take parts of JSON schema, and refuse a request whose schema holds more (with status 400). What is
left out here is left out of what is sent only: the answer is checked against the schema as the user gave it.

Source: https://platform.openai.com/docs/guides/structured-outputs
Source: https://docs.anthropic.com/en/docs/build-with-claude/structured-outputs
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from asyncflow.llm.json_schema import resolve

#: The property that holds a value which is no object.
ANSWER = "answer"

_NAMED = ("properties", "$defs", "definitions")
_INNER = ("items", "prefixItems", "anyOf", "allOf", "oneOf", "additionalProperties")
#: Demands that Anthropic refuses in a schema.
_REFUSED = frozenset(
    {
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minLength", "maxLength", "pattern", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
    }
)
#: Formats that Anthropic takes.
_FORMATS = frozenset(
    {
        *("date-time", "time", "date", "duration"),
        *("email", "hostname", "uri", "ipv4", "ipv6", "uuid"),
    }
)
#: Keywords with which OpenAI's strict mode refuses a schema.
_NOT_STRICT = frozenset(
    {
        *("oneOf", "allOf", "not", "if", "then", "else", "prefixItems", "contains", "uniqueItems"),
        *("minLength", "maxLength", "minProperties", "maxProperties", "patternProperties", "propertyNames"),
        *("dependentRequired", "dependentSchemas"),
    }
)


def as_object(schema: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The schema of an object, and whether it was put around one that is none.

    Providers ask for an object at the top. A reference there (recursive models) is followed; anything else
    becomes the property `answer` of an object.

    Example:
        >>> as_object({"type": "array", "items": {"type": "integer"}})[0]["properties"]
        {'answer': {'type': 'array', 'items': {'type': 'integer'}}}
    """
    top = dict(schema)
    for _ in range(20):
        target = resolve(top["$ref"], schema) if "$ref" in top else None
        if not isinstance(target, Mapping) or target is schema:
            break
        top = {**target, **{name: part for name, part in top.items() if name != "$ref"}}
    if top.get("type") == "object" or ("type" not in top and "properties" in top):
        return top, False
    shared = {name: part for name, part in schema.items() if name in ("$defs", "definitions")}
    inner = _moved({name: part for name, part in schema.items() if name not in shared})
    return {
        "type": "object",
        "properties": {ANSWER: inner},
        "required": [ANSWER],
        "additionalProperties": False,
        **_moved(shared),
    }, True


def _moved(part: Any) -> Any:
    """The part with references that follow the schema to its new place."""
    if isinstance(part, list):
        return [_moved(one) for one in part]
    if not isinstance(part, Mapping):
        return part
    moved = {name: _moved(one) for name, one in part.items()}
    ref = moved.get("$ref")
    if isinstance(ref, str) and not ref.startswith(("#/$defs/", "#/definitions/")):
        moved["$ref"] = f"#/properties/{ANSWER}{ref.removeprefix('#')}"
    return moved


def closed(schema: Mapping[str, Any], *, simple: bool = False) -> dict[str, Any]:
    """The schema with every object closed to further properties, as providers' strict modes demand.

    Args:
        schema: A JSON schema; it is not changed.
        simple: Say demands on numbers, lengths and patterns, which some providers refuse, in the
            description, where the model reads them.

    Example:
        >>> closed({"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}, simple=True)[
        ...     "properties"
        ... ]
        {'n': {'type': 'integer', 'description': 'Must satisfy {"minimum": 1}'}}
    """

    def close(part: Any) -> None:
        if isinstance(part, list):
            for one in part:
                close(one)
        if not isinstance(part, dict):
            return
        if simple:
            _say_demands(part)
        for name, inner in part.items():
            if name in _NAMED and isinstance(inner, dict):
                for one in inner.values():
                    close(one)
            elif name in _INNER:
                close(inner)
        if "properties" in part:
            part.setdefault("additionalProperties", False)

    copy = deepcopy(dict(schema))
    close(copy)
    return copy


def _say_demands(part: dict[str, Any]) -> None:
    if "oneOf" in part and "anyOf" not in part:
        part["anyOf"] = part.pop("oneOf")
    part.pop("discriminator", None)
    demands = {name: part.pop(name) for name in list(part) if name in _REFUSED}
    if part.get("format", "date") not in _FORMATS:
        demands["format"] = part.pop("format")
    if part.get("minItems", 0) > 1:
        demands["minItems"] = part.pop("minItems")
    if demands:
        told = f"Must satisfy {json.dumps(demands, ensure_ascii=False)}"
        part["description"] = f"{part['description']}\n\n{told}" if part.get("description") else told


def fits_strict_mode(schema: Mapping[str, Any]) -> bool:
    """Whether OpenAI's strict mode takes a closed schema.

    It wants an object at the top, every property required, no free-form object, and knows some keywords only.

    Example:
        >>> fits_strict_mode(closed({"type": "object", "properties": {"a": {}}, "required": ["a"]}))
        True
        >>> fits_strict_mode({"type": "object", "additionalProperties": {"type": "string"}})
        False
    """

    def fits(part: Any) -> bool:
        if isinstance(part, list):
            return all(map(fits, part))
        if not isinstance(part, Mapping):
            return True
        if _NOT_STRICT & part.keys():
            return False
        if part.get("type") == "object" or "properties" in part:
            properties = part.get("properties")
            if properties is None or part.get("additionalProperties") is not False:
                return False
            if set(part.get("required", ())) != set(properties):
                return False
        return all(
            all(map(fits, inner.values())) if name in _NAMED and isinstance(inner, Mapping) else fits(inner)
            for name, inner in part.items()
            if name in _NAMED or name in _INNER
        )

    return schema.get("type") == "object" and fits(schema)
