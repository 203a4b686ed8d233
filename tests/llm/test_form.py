"""asyncflow/llm/form.py and json_schema.py: whether an answer is what was asked for."""

from __future__ import annotations

import json
import random
import uuid
from datetime import date, datetime
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from asyncflow.llm.form import Form, WrongFormError
from asyncflow.llm.json_schema import problems_of
from asyncflow.llm.native import closed, fits_strict_mode
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


class Part(BaseModel):
    value: int
    children: list[Part] = []


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (Part, '{"value": 1, "children": [{"value": 2, "children": []}, {"val'),
        (Part, '```json\n{"value": 1, "children": [{"value": 2, "children": []}, {"val'),
        (Part, '{"value": 1, "children": [{"value": 2}], wrong}'),
        (list[int], '{"answer": {"ids": [30, 40], "mo'),
        (list[str], '{"answer": ["a", "b"], "rest": ["c"'),
        ({"type": "object", "required": ["n"]}, '{"items": [{"n": 1}, {"n": 2'),
        ({"type": "object", "required": ["n"]}, '{"a": "}", "items": [{"n": 1}], "b": "c'),
    ],
)
def test_a_part_is_never_the_answer(schema: Any, text: str) -> None:
    """Of an answer that was cut or has a mistake, no value within it counts."""
    with pytest.raises(WrongFormError, match="no JSON"):
        Form(schema).read(text)


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (list[int], 'Of sources [1] and [2] the answer is {"answer": [30, 40]}', [30, 40]),
        (list[int], 'The answer is {"answer": [30, 40]}, see [1].', [30, 40]),
        (list[int], "First [1], no, rather [2, 3].", [2, 3]),
        (Part, 'Like {"value": 0}? It is {"value": 1} by [7].', Part(value=1)),
        (Part, 'As in\n```json\n{"value": 0}\n```\nso\n```json\n{"value": 1}\n```', Part(value=1)),
    ],
)
def test_of_several_values_the_last_that_fits_counts(schema: Any, text: str, value: Any) -> None:
    """And one in the object that was asked for counts before all others."""
    assert Form(schema).read(text) == value


def test_of_a_cut_answer_only_a_whole_value_counts() -> None:
    """What stands between other words may be a part of what it was to become."""
    form = Form(Part)
    assert form.read('{"value": 1}', cut=True) == form.read('```json\n{"value": 1}\n``` as', cut=True)
    with pytest.raises(WrongFormError, match="no JSON"):
        form.read('Think of {"value": 1} and', cut=True)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("around", ["%s", "so: %s", "```json\n%s\n```"])
def test_numbers_that_are_none_are_refused(number: str, around: str) -> None:
    """The model is told, and gets to answer again."""
    for schema in ({"type": "object", "required": ["n"]}, dict[str, float]):
        with pytest.raises(WrongFormError, match=rf"^\$: {number} is no number in JSON"):
            Form(schema).read(around % f'{{"n": {number}}}')


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
    assert closed(named, simple=True)["properties"] == {
        "pattern": {"type": "string", "description": 'Must satisfy {"pattern": "x"}'}
    }


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
        (10**400, {"multipleOf": 0.5}, 0),
        (10**400 + 1, {"multipleOf": 2.5}, 1),
        (10**400 + 1, {"multipleOf": 2}, 1),
        (1e308, {"multipleOf": 1e-5}, 1),
        (float("nan"), {"multipleOf": 2}, 1),
        ({"x_1": 3}, {"patternProperties": {"^x_": {"type": "integer"}}, "additionalProperties": False}, 0),
        ({"x_1": "3"}, {"patternProperties": {"^x_": {"type": "integer"}}, "additionalProperties": False}, 1),
        ({"y": 3}, {"patternProperties": {"^x_": True}, "additionalProperties": False}, 1),
        ({"x": 3}, {"properties": {"x": {"minimum": 4}}, "patternProperties": {"x": {"maximum": 2}}}, 2),
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


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: float = Field(gt=0, lt=1)


class Named(BaseModel):
    kind: Literal["named"]
    name: str = Field(min_length=3, max_length=10)


class Tree(BaseModel):
    label: str
    left: Tree | None = None
    rest: list[Tree] = []


class Everything(BaseModel):
    """What people put into models: nested, optional, unions, enumerations, sizes, patterns, formats."""

    mood: Mood
    shape: Circle | Named = Field(discriminator="kind")
    trees: list[Tree] = Field(min_length=2, max_length=3)
    maybe: int | None
    code: str = Field(pattern=r"^[A-Z]{3}-\d{2}(x|yz)?$")
    tags: set[int] = Field(min_length=3)
    table: dict[str, int] = Field(min_length=2)
    pair: tuple[int, str]
    step: float = Field(multiple_of=0.5, ge=-1, le=1)
    seen: datetime
    id: uuid.UUID
    small: Annotated[int, Field(gt=3, lt=5)]
    flag: bool = False


KINDS = [Person, Child, Tree, Everything, list[Child], Mood, int, Child | None, Annotated[int, Field(ge=5)]]


@pytest.mark.parametrize("mode", ["openai", "anthropic"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: getattr(kind, "__name__", str(kind)))
def test_made_values_satisfy_models(kind: Any, mode: str) -> None:
    """What the simulated provider makes for a model, asked in either provider's way, the model accepts."""
    form = Form(kind)
    asked = closed(form.asked, simple=mode == "anthropic")
    assert asked["type"] == "object"
    for seed in range(20):
        form.read(json.dumps(value_for(asked, random.Random(seed))))


@pytest.mark.parametrize(
    "schema",
    [
        {"not": {"type": "string"}},
        {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True, "minItems": 3},
        {"type": "array", "items": {"type": "integer"}, "contains": {"const": 7}},
        {"type": "object", "minProperties": 2, "additionalProperties": {"type": "integer"}},
        {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a"], "maxProperties": 1},
        {"type": "object", "properties": {"list": {"type": "array", "items": {"$ref": "#"}}}},
        {"type": "string", "pattern": "^(a|b)[^x]\\w{2,}?\\.[0-9]+$", "minLength": 12},
        {"type": "string", "pattern": r"(\d)-\1"},
        {"type": "integer", "minimum": 1, "exclusiveMinimum": 3, "maximum": 4},
        {"type": "integer", "multipleOf": 7, "minimum": 50, "maximum": 60},
        {"allOf": [{"$ref": "#/$defs/a"}, {"required": ["z"]}], "$defs": {"a": {"type": "object"}}},
        {"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "minItems": 2, "maxItems": 2},
        {"type": ["integer", "null"], "enum": [None, 2]},
    ],
)
def test_made_values_satisfy_keywords(schema: Any) -> None:
    """One keyword after the other, alone and inside an object."""
    for seed in range(20):
        made = value_for(schema, random.Random(seed))
        assert problems_of(made, schema) == [], made
    form = Form(schema)
    form.read(json.dumps(value_for(form.asked, random.Random(1))))


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "objekt"}, r"\$: 'objekt' is no type"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}}, r"\$\.properties\.a: .*has no '#/\$defs/b'"),
        ({"items": {"pattern": "("}}, r"\$\.items\.pattern: '\(' is no regular expression"),
        ({"patternProperties": {"(": {}}}, r"\$\.patternProperties\.\(: '\(' is no regular expression"),
        ({"patternProperties": {"a": {"type": "x"}}}, r"\$\.patternProperties\.a: 'x' is no type"),
        ({"properties": {"a": {"minimum": "1"}}}, r"\$\.properties\.a\.minimum: '1' is no number"),
        ({"minimum": 0, "exclusiveMinimum": True}, r"\$\.exclusiveMinimum: True is no number"),
        ({"maximum": float("nan")}, r"\$\.maximum: nan is no number"),
        ({"multipleOf": 0}, r"\$\.multipleOf: 0 is not above 0"),
        ({"maxItems": 1.5}, r"\$\.maxItems: 1\.5 is no count"),
    ],
)
def test_a_wrong_schema_is_told_before_anything_is_sent(schema: Any, says: str) -> None:
    """With the place in it."""
    with pytest.raises(ValueError, match=says):
        Form(schema)


def test_what_is_no_object_is_put_into_one() -> None:
    """Providers want an object at the top; the value is taken out again, also where a server left it bare."""
    form = Form(list[int])
    assert form.asked["properties"]["answer"]["type"] == "array" and form.asked["required"] == ["answer"]
    assert form.read('{"answer": [1, 2]}') == form.read("[1, 2]") == [1, 2]
    with pytest.raises(WrongFormError, match=r"\$\.0: Input should be a valid integer"):
        form.read('{"answer": ["x"]}')
    inner = Form({"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#"}}]})
    assert inner.asked["properties"]["answer"]["anyOf"][1]["items"] == {"$ref": "#/properties/answer"}
    assert inner.read('{"answer": [[], null]}') == [[], None]
    assert Form(Tree).asked["type"] == "object" and "$ref" not in Form(Tree).asked


def test_strict_mode_is_left_where_it_would_be_refused() -> None:
    """Keywords that OpenAI's strict mode answers with status 400 go without it, and are checked here."""
    for field in ({"oneOf": [{"type": "string"}]}, {"type": "string", "minLength": 2}):
        schema = {"type": "object", "properties": {"a": field}, "required": ["a"]}
        assert not fits_strict_mode(closed(schema))
    for field in ({"type": "string", "pattern": "a"}, {"type": "array", "items": {}, "minItems": 2}):
        schema = {"type": "object", "properties": {"a": field}, "required": ["a"]}
        assert fits_strict_mode(closed(schema))
