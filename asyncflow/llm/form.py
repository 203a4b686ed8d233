"""The form an answer must have: a pydantic model, or a JSON schema."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, TypeAlias

from asyncflow.llm.json_schema import problems_of

#: What `schema=` takes: a pydantic model class, any type pydantic understands, or a JSON schema.
Schema: TypeAlias = "type | Mapping[str, Any]"

_FENCED = re.compile(r"```(?:json|JSON)?[ \t]*\n(.*?)\n?[ \t]*```", re.S)
#: Demands that some providers refuse in a schema. They stay demands: the answer is checked here.
_REFUSED = frozenset(
    {
        *(
            "minimum",
            "maximum",
            "exclusiveMinimum",
            "exclusiveMaximum",
            "multipleOf",
            "minLength",
            "maxLength",
        ),
        *("minItems", "maxItems", "uniqueItems", "pattern", "format"),
    }
)


class WrongFormError(ValueError):
    """A text is not what the form demands.

    Attributes:
        problems: What is wrong, one line each.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Form:
    """What an answer must be.

    Args:
        schema: A pydantic model class, another type that pydantic understands (`list[int]`, a dataclass),
            or a JSON schema as a dict.

    Attributes:
        json_schema: The schema as JSON.
        name: What it is called on the way to the provider.
        kind: The type of its values, or None where they are JSON.

    Raises:
        TypeError: If it is none of these.

    Example:
        >>> form = Form({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
        >>> form.read('Here it is: {"n": 3}')
        {'n': 3}
    """

    def __init__(self, schema: Schema) -> None:
        self._adapter: Any = None
        self.kind: Any = None if isinstance(schema, Mapping) else schema
        if isinstance(schema, Mapping):
            self.json_schema: dict[str, Any] = dict(schema)
            title = schema.get("title")
        else:
            from pydantic import TypeAdapter  # a tenth of a second, only for who needs it

            try:
                self._adapter = TypeAdapter(schema)
                self.json_schema = self._adapter.json_schema()
            except Exception as exc:
                raise TypeError(
                    f"schema={schema!r}: give a pydantic model class or a JSON schema as a dict ({exc})"
                ) from exc
            title = getattr(schema, "__name__", None)
        self.name = re.sub(r"[^A-Za-z0-9_-]", "_", str(title or "answer"))[:64]

    def read(self, text: str) -> Any:
        """The value in a text: a model instance, or the JSON where the form is a JSON schema.

        Takes JSON that stands alone, in a code fence, or within other text.

        Raises:
            WrongFormError: If there is no JSON in it, or it does not fit.
        """
        value = _json_in(text)
        if self._adapter is None:
            found = problems_of(value, self.json_schema)
            if found:
                raise WrongFormError(tuple(found))
            return value
        from pydantic import ValidationError

        try:
            # As JSON, not as Python: "2026-01-01" is a date there, and a tuple is an array.
            return self._adapter.validate_json(json.dumps(value))
        except ValidationError as exc:
            raise WrongFormError(
                tuple(
                    f"$.{'.'.join(map(str, one['loc']))}: {one['msg']}".replace("$.:", "$:")
                    for one in exc.errors(include_url=False, include_context=False, include_input=False)
                )
            ) from None

    def plain(self, value: Any) -> Any:
        """The value as JSON holds it, whatever `read` made of it."""
        return self._adapter.dump_python(value, mode="json") if self._adapter is not None else value


def closed(schema: Mapping[str, Any], *, simple: bool = False) -> dict[str, Any]:
    """The schema with every object closed to further properties, as providers' strict modes demand.

    Args:
        schema: A JSON schema; it is not changed.
        simple: Leave out demands on numbers, lengths and patterns, which some providers refuse.

    Example:
        >>> closed({"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}, simple=True)
        {'type': 'object', 'properties': {'n': {'type': 'integer'}}, 'additionalProperties': False}
    """

    def close(part: Any) -> None:
        if isinstance(part, list):
            for one in part:
                close(one)
        if not isinstance(part, dict):
            return
        if simple and ("type" in part or "$ref" in part):
            for name in _REFUSED & part.keys():
                del part[name]
        for name, inner in part.items():
            if name in ("properties", "$defs", "definitions"):
                for one in inner.values():
                    close(one)
            elif name in ("items", "prefixItems", "anyOf", "allOf", "oneOf", "additionalProperties"):
                close(inner)
        if "properties" in part:
            part.setdefault("additionalProperties", False)

    copy = deepcopy(dict(schema))
    close(copy)
    return copy


def fits_strict_mode(schema: Mapping[str, Any]) -> bool:
    """Whether OpenAI's strict mode takes a closed schema: every property required, no free-form object.

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
        if part.get("type") == "object" or "properties" in part:
            properties = part.get("properties")
            if properties is None or part.get("additionalProperties") is not False:
                return False
            if set(part.get("required", ())) != set(properties):
                return False
        return all(
            fits(list(inner.values()) if name in ("properties", "$defs", "definitions") else inner)
            for name, inner in part.items()
            if name not in ("enum", "const", "default", "examples", "required")
        )

    return schema.get("type") == "object" and fits(schema)


def _json_in(text: str) -> Any:
    for candidate in (text, *(found[1] for found in _FENCED.finditer(text))):
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError):
            continue
    decoder = json.JSONDecoder()
    for start in (found.start() for found in re.finditer(r"[{\[]", text)):
        try:
            return decoder.raw_decode(text, start)[0]
        except (ValueError, RecursionError):
            continue
    raise WrongFormError(("$: there is no JSON in the answer",))
