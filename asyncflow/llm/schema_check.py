"""What is wrong with a JSON schema that a user gives, told before anybody is asked to satisfy it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from asyncflow.llm.json_schema import resolve

_TYPES = {"object", "array", "string", "boolean", "null", "number", "integer"}
_OF_SCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SCHEMAS_BY_NAME = ("properties", "patternProperties", "$defs", "definitions")
_ONE_SCHEMA = ("items", "additionalProperties", "not")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")


def problem_of(schema: Any, root: Any, path: str = "$") -> str:
    """What is wrong with a schema, or an empty text.

    Args:
        schema: The schema, or a part of it.
        root: Where its references point into.
        path: Where the part lies, for the text.

    Example:
        >>> problem_of({"properties": {"a": {"type": "text"}}}, None)
        "$.properties.a: 'text' is no type; types are array, boolean, integer, null, number, object, string"
    """
    if isinstance(schema, bool):
        return ""
    if not isinstance(schema, Mapping):
        return f"{path}: a schema is an object"
    kinds = schema.get("type", [])
    for kind in [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else [kinds]:
        if not isinstance(kind, str) or kind not in _TYPES:
            return f"{path}: {kind!r} is no type; types are {', '.join(sorted(_TYPES))}"
    for name, kind in (("required", list), ("enum", list), *((name, list) for name in _OF_SCHEMAS)):
        if not isinstance(schema.get(name, []), kind):
            return f"{path}.{name}: a list is needed"
    if wrong := _wrong_number(schema):
        return f"{path}.{wrong}"
    patterns = {"pattern": schema["pattern"]} if "pattern" in schema else {}
    named = schema.get("patternProperties")
    patterns |= {f"patternProperties.{one}": one for one in named} if isinstance(named, Mapping) else {}
    for name, pattern in patterns.items():
        try:
            re.compile(pattern)
        except (re.error, TypeError) as exc:
            return f"{path}.{name}: {pattern!r} is no regular expression: {exc}"
    try:
        if "$ref" in schema:
            resolve(schema["$ref"], root)
    except (ValueError, TypeError, AttributeError) as exc:
        return f"{path}: {exc}"
    parts: list[tuple[str, Any]] = [(name, schema[name]) for name in _ONE_SCHEMA if name in schema]
    for name in _OF_SCHEMAS:
        parts += [(f"{name}[{number}]", inner) for number, inner in enumerate(schema.get(name, ()))]
    for name in _SCHEMAS_BY_NAME:
        inner = schema.get(name, {})
        if not isinstance(inner, Mapping):
            return f"{path}.{name}: an object is needed"
        parts += [(f"{name}.{key}", one) for key, one in inner.items()]
    return next((found for name, one in parts if (found := problem_of(one, root, f"{path}.{name}"))), "")


def _wrong_number(schema: Mapping[str, Any]) -> str:
    """The first of the keywords that compare whose value cannot be compared with, or an empty text."""
    for name in (*_NUMBERS, *_COUNTS):
        value = schema.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
            return f"{name}: {value!r} is no number"
        if name == "multipleOf" and not 0 < value < math.inf:
            return f"{name}: {value!r} is not above 0"
        if name in _COUNTS and (value < 0 or value != value // 1):
            return f"{name}: {value!r} is no count"
    return ""
