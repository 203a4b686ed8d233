"""asyncflow/llm/form.py and json_schema.py: whether an answer is what was asked for."""

from __future__ import annotations

import random
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from asyncflow.llm.form import Form, WrongFormError, closed, fits_strict_mode
from asyncflow.llm.json_schema import problems_of
from asyncflow.testing.from_schema import value_for


class Child(BaseModel):
    name: str
    born: date | None = None


class Person(BaseModel):
    name: str
    age: int = Field(ge=0, le=150)
    children: list[Child] = []


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Ada", "age": 36}',
        'Here you are:\n```json\n{"name": "Ada", "age": 36}\n```\nAnything else?',
        'The person is {"name": "Ada", "age": 36}.',
        '[not json] {"name": "Ada", "age": 36}',
    ],
)
def test_json_is_found(text: str) -> None:
    """Alone, in a fence, or in the middle of a sentence."""
    assert Form(Person).read(text) == Person(name="Ada", age=36)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no idea", r"\$: there is no JSON"),
        ('{"name": "Ada"}', r"\$\.age: Field required"),
        ('{"name": "Ada", "age": "old"}', r"\$\.age: Input should be a valid integer"),
        ('{"name": "Ada", "age": 1, "children": [{}]}', r"\$\.children\.0\.name"),
        ("3", r"\$: Input should be"),
    ],
)
def test_problems_name_their_place(text: str, problem: str) -> None:
    """A model that is shown them can mend its answer."""
    with pytest.raises(WrongFormError, match=problem):
        Form(Person).read(text)


def test_values_are_the_models_own() -> None:
    """Dates are dates, and plain() gives back JSON."""
    form = Form(Person)
    person = form.read('{"name": "A", "age": 1, "children": [{"name": "B", "born": "2020-02-03"}]}')
    assert person.children[0].born == date(2020, 2, 3)
    assert form.plain(person)["children"][0]["born"] == "2020-02-03"
    assert Form(list[int]).read("[1, 2]") == [1, 2]
    assert form.name == "Person" and form.kind is Person


def test_no_schema_at_all() -> None:
    """What is no schema is told before anything is sent."""
    with pytest.raises(TypeError, match="pydantic model class or a JSON schema"):
        Form(object())  # type: ignore[arg-type]


def test_strict_mode() -> None:
    """Closed schemas whose properties are all required go strictly; the user's own is not changed."""
    schema = Child.model_json_schema()
    before = str(schema)
    assert not fits_strict_mode(closed(schema)) and str(schema) == before
    schema["required"] = ["name", "born"]
    assert fits_strict_mode(closed(schema)) and not fits_strict_mode(schema)
    person = closed(Person.model_json_schema(), simple=True)
    assert "maximum" not in person["properties"]["age"]
    assert person["$defs"]["Child"]["additionalProperties"] is False
    named = {"type": "object", "properties": {"pattern": {"type": "string", "pattern": "x"}}}
    assert closed(named, simple=True)["properties"] == {"pattern": {"type": "string"}}


@pytest.mark.parametrize(
    ("value", "schema", "wrong"),
    [
        (1, {"type": "integer"}, 0),
        (1.0, {"type": "integer"}, 0),
        (True, {"type": "integer"}, 1),
        (True, {"enum": [1]}, 1),
        (1, {"enum": [1.0]}, 0),
        (None, {"type": ["string", "null"]}, 0),
        ({"a": 1}, {"additionalProperties": False}, 1),
        ({"a": 1}, {"additionalProperties": {"type": "string"}}, 1),
        ([1, "a"], {"prefixItems": [{"type": "integer"}], "items": {"type": "string"}}, 0),
        ([1, 1], {"uniqueItems": True}, 1),
        ([], {"minItems": 1}, 1),
        ("ab", {"minLength": 3, "pattern": "^b"}, 2),
        (5, {"exclusiveMaximum": 5}, 1),
        (0.3, {"multipleOf": 0.1}, 0),
        (3, {"oneOf": [{"type": "integer"}, {"minimum": 1}]}, 1),
        ("x", {"anyOf": [{"type": "integer"}, {"const": "y"}]}, 1),
        (
            {"v": {"v": 1}},
            {"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"v": {"$ref": "#/$defs/n"}}}}},
            0,
        ),
        (1, {"not": {"type": "integer"}}, 1),
        ("anything", True, 0),
        ("anything", False, 1),
    ],
)
def test_json_schema(value: Any, schema: Any, wrong: int) -> None:
    """Each keyword means what the standard says."""
    assert len(problems_of(value, schema)) == wrong


SCHEMAS = st.recursive(
    st.one_of(
        st.just({"type": "string"}),
        st.just({"type": "boolean"}),
        st.just({"type": "null"}),
        st.builds(
            lambda low, size: {"type": "integer", "minimum": low, "maximum": low + size},
            st.integers(-99, 99),
            st.integers(0, 9),
        ),
        st.builds(lambda low: {"type": "number", "exclusiveMinimum": low}, st.integers(-9, 9)),
        st.builds(
            lambda size: {"type": "string", "minLength": size, "maxLength": size + 3}, st.integers(0, 40)
        ),
        st.builds(lambda values: {"enum": values}, st.lists(st.text(), min_size=1, max_size=3)),
    ),
    lambda inner: st.one_of(
        st.builds(
            lambda parts, more: {
                "type": "object",
                "properties": parts,
                "required": [name for name in parts if more],
                "additionalProperties": False,
            },
            st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
            st.booleans(),
        ),
        st.builds(
            lambda part, low, size: {"type": "array", "items": part, "minItems": low, "maxItems": low + size},
            inner,
            st.integers(0, 3),
            st.integers(0, 3),
        ),
        st.builds(lambda parts: {"anyOf": parts}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=8,
)


@given(SCHEMAS, st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_made_values_satisfy(schema: Any, seed: int) -> None:
    """What the simulated provider makes for a schema is what the client accepts."""
    assert problems_of(value_for(schema, random.Random(seed)), schema) == []


def test_made_values_satisfy_models() -> None:
    """The same for pydantic's schemas, references and recursion included."""

    class Tree(BaseModel):
        label: str
        left: Tree | None = None
        rest: list[Tree] = []

    Tree.model_rebuild(_types_namespace={"Tree": Tree})
    for model in (Person, Tree):
        for seed in range(20):
            value = value_for(model.model_json_schema(), random.Random(seed))
            assert model.model_validate(value)
