"""Whether a JSON value satisfies a JSON schema: the part of the standard that models are asked for.

A pure function for schemas given as a dict; pydantic models validate themselves. Keywords that are not known
here (`format`, `$comment`, …) are no demands, as the standard says.
Source: https://json-schema.org/draft/2020-12/json-schema-validation
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool))
        or (isinstance(value, float) and value.is_integer())
    ),
}


def problems_of(value: Any, schema: Any, root: Any = None, path: str = "$") -> list[str]:
    """What is wrong with a value, one line each; empty if nothing is.

    Args:
        value: As `json.loads` returns it.
        schema: The schema; `True` takes everything, `False` nothing.
        root: Where `$ref` points into; the schema itself by default.
        path: Where the value lies, for the texts.

    Example:
        >>> problems_of({"age": "ten"}, {"properties": {"age": {"type": "integer"}}, "required": ["name"]})
        ["$: 'name' is missing", '$.age: "ten" is not of type integer']
    """
    return list(_problems(value, schema, schema if root is None else root, path, 0))


def resolve(ref: str, root: Any) -> Any:
    """What a `$ref` within the same document names.

    Raises:
        ValueError: If it names nothing there.
    """
    found = root
    for part in ref.removeprefix("#").split("/"):
        if not part:
            continue
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, Mapping) and name in found:
            found = found[name]
        else:
            raise ValueError(f"the schema has no {ref!r} (references lead into the schema itself)")
    return found


def _problems(value: Any, schema: Any, root: Any, path: str, depth: int) -> Iterator[str]:
    if schema is True or schema == {}:
        return
    if schema is False:
        yield f"{path}: nothing is allowed here"
        return
    if depth > 200:
        yield f"{path}: nested too deep"
        return
    if "$ref" in schema:
        yield from _problems(value, resolve(schema["$ref"], root), root, path, depth + 1)
    kinds = schema.get("type")
    if kinds is not None:
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not any(_TYPES.get(kind, lambda _: True)(value) for kind in kinds):
            yield f"{path}: {_show(value)} is not of type {' or '.join(kinds)}"
            return
    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        yield f"{path}: {_show(value)} is none of {_show(schema['enum'])}"
    if "const" in schema and not _same(value, schema["const"]):
        yield f"{path}: {_show(value)} is not {_show(schema['const'])}"
    yield from _combined(value, schema, root, path, depth)
    if isinstance(value, dict):
        yield from _object(value, schema, root, path, depth)
    elif isinstance(value, list):
        yield from _array(value, schema, root, path, depth)
    elif isinstance(value, str):
        yield from _string(value, schema, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _number(value, schema, path)


def _combined(value: Any, schema: Any, root: Any, path: str, depth: int) -> Iterator[str]:
    for part in schema.get("allOf", ()):
        yield from _problems(value, part, root, path, depth + 1)
    for name in ("anyOf", "oneOf"):
        if name in schema:
            tried = [list(_problems(value, part, root, path, depth + 1)) for part in schema[name]]
            fitting = sum(not found for found in tried)
            if not fitting:
                yield min(tried, key=len)[0] if tried else f"{path}: nothing is allowed here"
            elif name == "oneOf" and fitting > 1:
                yield f"{path}: {_show(value)} fits {fitting} of the choices, and only one may fit"
    if "not" in schema and not list(_problems(value, schema["not"], root, path, depth + 1)):
        yield f"{path}: {_show(value)} is what it must not be"


def _object(value: dict[str, Any], schema: Any, root: Any, path: str, depth: int) -> Iterator[str]:
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{path}: {name!r} is missing"
    if len(value) < schema.get("minProperties", 0):
        yield f"{path}: {len(value)} properties are fewer than {schema['minProperties']}"
    if len(value) > schema.get("maxProperties", math.inf):
        yield f"{path}: {len(value)} properties are more than {schema['maxProperties']}"
    properties, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, inner in value.items():
        parts = [properties[name]] if name in properties else []
        parts += [part for pattern, part in patterns.items() if re.search(pattern, name)]
        for part in parts:
            yield from _problems(inner, part, root, f"{path}.{name}", depth + 1)
        if parts:
            continue
        if schema.get("additionalProperties") is False:
            yield f"{path}: {name!r} is not allowed"
        elif "additionalProperties" in schema:
            yield from _problems(inner, schema["additionalProperties"], root, f"{path}.{name}", depth + 1)


def _array(value: list[Any], schema: Any, root: Any, path: str, depth: int) -> Iterator[str]:
    first = schema.get("prefixItems", ())
    for index, inner in enumerate(value):
        part = first[index] if index < len(first) else schema.get("items", True)
        yield from _problems(inner, part, root, f"{path}[{index}]", depth + 1)
    if len(value) < schema.get("minItems", 0):
        yield f"{path}: {len(value)} items are fewer than {schema['minItems']}"
    if len(value) > schema.get("maxItems", math.inf):
        yield f"{path}: {len(value)} items are more than {schema['maxItems']}"
    if "contains" in schema and all(
        list(_problems(one, schema["contains"], root, path, depth + 1)) for one in value
    ):
        yield f"{path}: no item is one of those that it must contain"
    if schema.get("uniqueItems") and len({_show(one, 10**9) for one in value}) < len(value):
        yield f"{path}: an item is there twice"


def _string(value: str, schema: Any, path: str) -> Iterator[str]:
    if len(value) < schema.get("minLength", 0):
        yield f"{path}: {_show(value)} is shorter than {schema['minLength']}"
    if len(value) > schema.get("maxLength", math.inf):
        yield f"{path}: {_show(value)} is longer than {schema['maxLength']}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{path}: {_show(value)} does not match {schema['pattern']!r}"


def _number(value: float, schema: Any, path: str) -> Iterator[str]:
    if value < schema.get("minimum", -math.inf) or value <= schema.get("exclusiveMinimum", -math.inf):
        yield f"{path}: {value} is too small"
    if value > schema.get("maximum", math.inf) or value >= schema.get("exclusiveMaximum", math.inf):
        yield f"{path}: {value} is too large"
    step = schema.get("multipleOf")
    if step and not _is_multiple(value, step):
        yield f"{path}: {_show(value)} is not a multiple of {step}"


def _is_multiple(value: float, step: float) -> bool:
    if isinstance(value, int) and isinstance(step, int):
        return value % step == 0
    if not isinstance(value, int) and not math.isfinite(value):
        return False
    try:
        times = value / step
        return math.isclose(times, round(times), abs_tol=1e-9)
    except OverflowError:  # what is too large for a float is compared as it is
        return Fraction(value) % Fraction(step) == 0


def _same(one: Any, other: Any) -> bool:
    return (type(one) is type(other) and bool(one == other)) or (
        isinstance(one, float | int)
        and isinstance(other, float | int)
        and not isinstance(one, bool)
        and not isinstance(other, bool)
        and one == other
    )


def _show(value: Any, length: int = 80) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return text if len(text) <= length else text[: length - 1] + "…"
