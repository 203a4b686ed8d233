"""The form an answer must have: a pydantic model, or a JSON schema."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeAlias

from asyncflow.llm.json_schema import problems_of
from asyncflow.llm.json_text import NotFiniteError, values_in
from asyncflow.llm.native import ANSWER, as_object
from asyncflow.llm.schema_check import problem_of

#: What `schema=` takes: a pydantic model class, any type pydantic understands, or a JSON schema.
Schema: TypeAlias = "type | Mapping[str, Any]"


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
        asked: The schema that a provider is asked with: that of an object, always (see `as_object`).
        name: What it is called on the way to the provider.
        kind: The type of its values, or None where they are JSON.

    Raises:
        TypeError: If it is none of these.
        ValueError: If a JSON schema is wrong in itself; the text says where.

    Example:
        >>> form = Form({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
        >>> form.read('Here it is: {"n": 3}')
        {'n': 3}
    """

    def __init__(self, schema: Schema) -> None:
        self._adapter: Any = None
        self.kind: Any = None if isinstance(schema, Mapping) else schema
        if isinstance(schema, Mapping):
            wrong = problem_of(schema, schema)
            if wrong:
                raise ValueError(f"schema: {wrong}")
            self.json_schema: dict[str, Any] = dict(schema)
            title = schema.get("title")
        else:
            from pydantic import TypeAdapter  # a tenth of a second, only for who needs it

            try:
                self._adapter = TypeAdapter(schema)
                self.json_schema = self._adapter.json_schema()
            except Exception as exc:
                why = str(exc).strip().partition("\n")[0]
                raise TypeError(
                    f"schema={schema!r:.200}: give a pydantic model class or a JSON schema as a dict "
                    f"(a class, not an instance): {why}"
                ) from exc
            title = getattr(schema, "__name__", None)
        self.asked, self._put_around = as_object(self.json_schema)
        self.name = re.sub(r"[^A-Za-z0-9_-]", "_", str(title or "answer"))[:64]

    def read(self, text: str, *, cut: bool = False) -> Any:
        """The value in a text: a model instance, or the JSON where the form is a JSON schema.

        Takes JSON that stands alone, in a code fence, or within other text. Of several values the last that
        fits counts.

        Args:
            text: What the model wrote.
            cut: Whether more would have come; then JSON within other text does not count.

        Raises:
            WrongFormError: If there is no JSON in it, or it does not fit.
        """
        try:
            values = values_in(text, cut=cut)
        except NotFiniteError as exc:
            raise WrongFormError((f"$: {exc}",)) from None
        # What is asked for is an object, always: numbers in brackets next to it are sources, and the like.
        likely = [one for one in values if isinstance(one, dict) and (not self._put_around or _wrapped(one))]
        wrong = WrongFormError(("$: there is no JSON in the answer",))
        for number, value in enumerate(reversed(likely or values)):
            try:
                return self._unwrapped(value)
            except WrongFormError as exc:
                wrong = wrong if number else exc
        raise wrong

    def _unwrapped(self, value: Any) -> Any:
        if not self._put_around or not _wrapped(value):
            return self._checked(value)
        try:
            return self._checked(value[ANSWER])
        except WrongFormError:
            with suppress(WrongFormError):  # a server without a mode of its own may have left it out
                return self._checked(value)
            raise

    def _checked(self, value: Any) -> Any:
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


def _wrapped(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {ANSWER}
