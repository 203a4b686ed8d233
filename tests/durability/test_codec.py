"""What is recorded is what is read."""

from __future__ import annotations

import enum
import math
import pickle
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple, NewType
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, PrivateAttr

from asyncflow.durability.codec import Codec, Encoder, Unreadable, Unstorable


class Color(enum.Enum):
    RED = "r"
    GREEN = (1, 2)


class Level(enum.IntEnum):
    LOW = 1


class Flags(enum.Flag):
    A = 1
    B = 2


@dataclass(frozen=True, slots=True)
class Point:
    x: float
    color: Color = Color.RED


@dataclass
class Tree:
    name: str
    children: list[Tree] = field(default_factory=list)
    at: dict[str, Point] | None = None


class Pair(NamedTuple):
    left: Any
    right: Any


class Person(BaseModel):
    name: str = Field(alias="fullName")
    born: date | None = None
    friends: list[Person] = []
    secret: str = Field(default="s", exclude=True)
    _seen: int = PrivateAttr(default=0)


def same(left: Any, right: Any) -> bool:
    """Equal in type and value, all the way down; NaN is itself, and 0.0 is not -0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return repr(left) == repr(right)
    if isinstance(left, (complex, Decimal)):
        return repr(left) == repr(right)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(map(repr, left)) == list(map(repr, right)) and all(
            map(same, left.values(), right.values())
        )
    return bool(left == right)


def back(value: Any, declared: Any = None, **options: Any) -> Any:
    return Codec(declared, **options).decode(Codec(declared, **options).encode(value))


TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**700), 10**700)
    | st.floats()
    | TEXT
    | st.binary(max_size=8)
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals()
    | st.uuids()
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.complex_numbers()
)
KEYS = (
    st.none() | st.booleans() | st.integers() | TEXT | st.binary(max_size=4) | st.tuples(st.integers(), TEXT)
)
VALUES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.dictionaries(st.sampled_from(["$tuple", "$as", "$", "a"]), inner, max_size=2)
        | st.sets(KEYS, max_size=3)
        | st.frozensets(KEYS, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_every_plain_value_comes_back_as_itself(value: Any) -> None:
    """Type and value, at every depth: JSON's own, and what only a tag can tell from it."""
    assert same(back(value), value)


@pytest.mark.parametrize(
    "value",
    [
        1 << 5000,
        -(1 << 5000),
        math.nan,
        -math.inf,
        -0.0,
        "\ud83d",
        "\ud83d\ude00",
        {"\udc00": 1},
        "\0",
        {"$npy": "x"},
        {"$as": ["Point", {}]},
        {1: "a", "1": "b", True and 2: "c"},
        {(1, 2): {3}},
        [(), [], {}],
        datetime(2026, 10, 25, 2, 30, fold=1),
        datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Zurich")),
        datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Zurich")),
        datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=45))),
        time(1, 2, tzinfo=UTC),
        Decimal("1E+400"),
        Decimal("-0"),
        UUID(int=7),
        Path("a/b"),
        bytearray(b"\xff"),
        timedelta(-1, 1, 1),
    ],
    ids=repr,
)
def test_edges_come_back(value: Any) -> None:
    """The values that JSON, UTF-8 or a database would change, and those that look like tags."""
    found = back(value)
    assert same(found, value)
    assert getattr(found, "fold", 0) == getattr(value, "fold", 0)
    assert getattr(found, "tzinfo", None) == getattr(value, "tzinfo", None)


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (Point, Point(1.0)),
        (list[Tree], [Tree("a", [Tree("b")], {"p": Point(-0.0, Color.GREEN)})]),
        (Point | None, None),
        (dict[str, Point | Pair], {"a": Point(2.0), "b": Pair({1}, (Point(3.0),))}),
        (Level, Level.LOW),
        (Flags, Flags.A | Flags.B),
        (Literal[Color.RED], Color.RED),
        (NewType("P", Point), Point(1.0)),
        (
            Person,
            Person(fullName="Ada", born=date(1815, 12, 10), friends=[Person(fullName="Mary")], secret="t"),
        ),
        (tuple[Person, ...], (Person(fullName="Ada"),)),
    ],
    ids=lambda value: str(value)[:40],
)
def test_declared_classes_come_back(declared: Any, value: Any) -> None:
    """Wherever they lie in the value, as what they are: no coercion, no validator, no `__init__`."""
    found = back(value, declared)
    assert found == value and type(found) is type(value)


def test_a_model_keeps_what_its_dump_would_leave_out() -> None:
    """Excluded and private fields, and which fields were set."""
    person = Person(fullName="Ada", secret="kept")
    person._seen = 3
    found = back(person, Person)
    assert (found.secret, found._seen, found.model_fields_set) == ("kept", 3, {"name", "secret"})


def test_restoring_runs_no_code_of_the_class() -> None:
    """Neither `__init__` nor `__post_init__` is called again."""
    calls = []

    @dataclass
    class Noisy:
        x: int

        def __post_init__(self) -> None:
            calls.append(self.x)
            self.doubled = self.x * 2

    noisy = Noisy(2)
    noisy.doubled = 5
    found = back(noisy, Noisy)
    assert (found.x, found.doubled, calls) == (2, 5, [2])


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.ones((2, 3), np.float16)),
        np.array(1.5),
        np.zeros((0, 3)),
        np.array(["a", "é"]),
        np.array([1, 2], ">i4"),
        np.array(["2026-01-01"], "M8[ns]"),
        np.ones(3)[::2],
        np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
        np.array([math.nan, -0.0]),
        np.array([True]),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_come_back_with_dtype_and_bits(array: np.ndarray[Any, Any]) -> None:
    """Shape, dtype and every bit, byte order and NaN included; the copy can be written to."""
    found = back({"a": array})["a"]
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert type(found) is np.ndarray and found.flags.writeable


@pytest.mark.parametrize(
    "scalar", [np.float64(0.1), np.float32(1), np.int8(-3), np.bool_(True), np.datetime64("2026")]
)
def test_numpy_scalars_keep_their_type(scalar: Any) -> None:
    """np.float64 is a float, and still comes back as np.float64."""
    found = back([scalar])[0]
    assert type(found) is type(scalar) and found == scalar and found.dtype == scalar.dtype


class Custom:
    def __init__(self, x: int) -> None:
        self.x = x


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (Custom(1), "return plain data"),
        ({"a": [Point(1.0)]}, r"result\['a'\]\[0\].*result_type"),
        (Color.RED, "annotate"),
        (OrderedDict(a=1), "OrderedDict"),
        (lambda: 1, "function"),
        (np.array([object()]), "pickle"),
        (np.ma.array([1]), "MaskedArray"),
        (Level.LOW, "annotate"),
        (iter([]), "iterator"),
        ({Custom(1): 2}, "a key"),
        (ValueError("x"), "ValueError"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_could_not_come_back_is_refused(value: Any, says: str) -> None:
    """With where it lies in the result, its type, and what to do."""
    with pytest.raises(Unstorable, match=says):
        Codec(Any).encode(value)


def test_what_contains_itself_is_refused() -> None:
    """And so is what is nested beyond what can be read."""
    cycle: list[Any] = []
    cycle.append(cycle)
    deep: Any = ()
    for _ in range(100_000):
        deep = (deep,)
    for value in (cycle, {"a": cycle}, deep):
        with pytest.raises(Unstorable, match="itself"):
            Codec().encode(value)
    while deep:
        (deep,) = deep


def test_an_undeclared_subclass_is_refused() -> None:
    """Declared is the class itself: a subclass would come back as its base."""

    @dataclass
    class Sub(Tree):
        more: int = 0

    with pytest.raises(Unstorable, match="Sub"):
        Codec(Tree).encode(Sub("a"))


def test_an_encoder_serves_a_class_of_another_library() -> None:
    """`dump` may return anything that the codec knows, `load` gets exactly that."""
    encoder = Encoder(Custom, "custom", lambda value: (value.x,), lambda body: Custom(*body))
    found = back([Custom(5)], encoders=[encoder])
    assert type(found[0]) is Custom and found[0].x == 5
    with pytest.raises(Unreadable, match="custom"):
        Codec().decode(Codec(encoders=[encoder]).encode(Custom(5)))


def test_a_changed_class_is_told_not_guessed() -> None:
    """A field that is gone or new without a default; one that is new with a default takes it."""

    def version(name: str, **fields: Any) -> Any:
        from dataclasses import make_dataclass

        return make_dataclass(
            name, [(k, v) if isinstance(v, type) else (k, Any, v) for k, v in fields.items()]
        )

    old = version("P", a=int, b=int)
    data = Codec(old).encode(old(1, 2))
    assert Codec(version("P", a=int, b=int, c=7)).decode(data).c == 7
    for changed in (version("P", a=int, b=int, c=int), version("Q", a=int, b=int)):
        with pytest.raises(Unreadable):
            Codec(changed).decode(data)


def test_nothing_stored_is_executed() -> None:
    """A record that names a class of the program, or carries a pickle, builds neither."""
    hostile = [
        b'{"$as":["os.system","true"]}',
        b'{"$as":["Person",[{},null,[],null]]}',
        b'{"$by":["eval","1"]}',
        b'{"$py/object":"os.system"}',
        b'{"$npy":"gASVCgAAAAAAAACMBnN5c3RlbZQu"}',
    ]
    for data in hostile:
        with pytest.raises((Unreadable, ValueError)):
            Codec(Point).decode(data)
    with pytest.raises(ValueError, match="allow_pickle"):
        import io
        from base64 import b64encode

        buffer = io.BytesIO()
        np.save(buffer, np.array([Custom], object), allow_pickle=True)
        Codec().decode(b'{"$npy":"' + b64encode(buffer.getvalue()) + b'"}')
    assert b"pickle" not in Codec().encode({"p": pickle.dumps(1)})


def test_a_completion_is_recorded_with_the_model_it_parsed() -> None:
    """`Completion` and a schema of the user's, declared together, round-trip."""
    from asyncflow.llm.completion import Completion, Usage

    answer = Completion("hi", Usage(3, 4), parsed=Person(fullName="Ada"), cost=0.25, raw={"id": 1})
    found = back(answer, Completion | Person)
    assert found == answer and found.raw == answer.raw
    with pytest.raises(Unstorable, match=r"\['parsed'\].*Person"):
        Codec(Completion).encode(answer)
