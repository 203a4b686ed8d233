"""Classes that a declared type reaches: dataclasses, pydantic models, enums and named tuples.

Their objects are recorded as the values of their fields, and restored by setting these: neither `__init__`
nor a validator runs again, so a restored object is equal to the recorded one even where those would have
changed or refused it.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
import typing
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class Changed(ValueError):
    """The class has other fields than when the object was recorded."""


class Shape(NamedTuple):
    """How objects of one class become plain values, and plain values objects again."""

    type: Any
    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]


def reachable(hints: Iterable[Any]) -> dict[str, Shape]:
    """The classes that occur in type hints, and in the hints of their fields, by the name records use."""
    found: dict[str, Shape] = {}
    known: set[int] = set()
    todo = list(hints)
    keep = []  # so that an id is not given to a second object
    while todo:
        hint = todo.pop(0)
        if hint is None or isinstance(hint, (str, typing.TypeVar)) or id(hint) in known:
            continue
        known.add(id(hint))
        keep.append(hint)
        todo.extend(_parts(hint))
        if isinstance(hint, type) and (shape := shape_of(hint)) is not None:
            name, number = hint.__qualname__, 2
            while name in found:  # two classes of one name, in different modules
                name, number = f"{hint.__qualname__}#{number}", number + 1
            found[name] = shape
            todo.extend(_fields_of(hint))
    return found


def is_shape(kind: type) -> bool:
    """Whether objects of this class can be recorded, once it is declared."""
    return shape_of(kind) is not None


def shape_of(kind: type) -> Shape | None:
    """The shape of a class, or None where it has none."""
    if issubclass(kind, enum.Enum):
        return Shape(kind, _dump_enum, lambda body: _load_enum(kind, body))
    if dataclasses.is_dataclass(kind):
        return Shape(kind, _dump_dataclass, lambda body: _load_dataclass(kind, body))
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return Shape(kind, list, lambda body: _load_named_tuple(kind, body))
    if _is_model(kind):
        return Shape(kind, _dump_model, lambda body: _load_model(kind, body))
    return None


def _parts(hint: Any) -> list[Any]:
    """What a hint is made of: `list[Person] | None` of `list[Person]`; a `Literal` of its values' enums."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return [type(value) for value in typing.get_args(hint) if isinstance(value, enum.Enum)]
    parts = [origin] if isinstance(origin, type) else []
    for part in typing.get_args(hint):
        parts.extend(part if isinstance(part, list) else [part])
    if hasattr(hint, "__value__"):  # `type X = ...`
        parts.append(hint.__value__)
    if hasattr(hint, "__supertype__"):  # NewType
        parts.append(hint.__supertype__)
    if isinstance(hint, type) and typing.is_typeddict(hint):
        parts.extend(_fields_of(hint))
    return parts


def _fields_of(kind: type) -> list[Any]:
    if _is_model(kind):
        return [field.annotation for field in kind.model_fields.values()]  # type: ignore[attr-defined]
    try:
        return list(typing.get_type_hints(kind).values())
    except Exception:  # a name that only type checkers see: what the other fields say still counts
        own = [vars(base).get("__annotations__", {}) for base in kind.__mro__]
        return [hint for annotations in own for hint in annotations.values()]


def _is_model(kind: type) -> bool:
    """A pydantic model; pydantic is not imported for that: where it is not, there is no model."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(kind, pydantic.BaseModel)


def _dump_enum(member: enum.Enum) -> Any:
    """By name: values may be anything. A combination of flags has none, and is an int."""
    if isinstance(member, enum.Flag):
        return member.value
    return member.name


def _load_enum(kind: Any, body: Any) -> Any:
    try:
        return kind(body) if issubclass(kind, enum.Flag) else kind[body]
    except (KeyError, ValueError):
        raise Changed(f"{kind.__qualname__} no longer has {body!r}, which a record holds") from None


def _dump_dataclass(value: Any) -> dict[str, Any]:
    state = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if hasattr(value, f.name)}
    return {**getattr(value, "__dict__", {}), **state}


def _load_dataclass(kind: Any, body: dict[str, Any]) -> Any:
    fields = {field.name for field in dataclasses.fields(kind)}
    optional = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    }
    has_dict = getattr(kind, "__dictoffset__", 0) != 0
    _compare(kind, set(body) & fields if has_dict else set(body), fields, optional)
    restored = object.__new__(kind)
    for field in dataclasses.fields(kind):
        if field.name not in body:
            default = (
                field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            )
            object.__setattr__(restored, field.name, default)
    for name, part in body.items():
        object.__setattr__(restored, name, part)
    return restored


def _load_named_tuple(kind: Any, body: list[Any]) -> Any:
    if len(body) != len(kind._fields):
        raise Changed(f"{kind.__qualname__} has {len(kind._fields)} fields, its record {len(body)}")
    return tuple.__new__(kind, body)


def _dump_model(value: Any) -> list[Any]:
    private = getattr(value, "__pydantic_private__", None)
    return [dict(value.__dict__), value.__pydantic_extra__, sorted(value.__pydantic_fields_set__), private]


def _load_model(kind: Any, body: list[Any]) -> Any:
    state, extra, fields_set, private = body
    fields = kind.model_fields
    optional = {name for name, field in fields.items() if not field.is_required()}
    computed = {name for name in state if name not in fields and name in vars(kind)}  # cached properties
    _compare(kind, set(state) - computed, set(fields), optional)
    for name in fields:
        if name not in state:
            state[name] = fields[name].get_default(call_default_factory=True, validated_data=state)
    restored = kind.__new__(kind)
    object.__setattr__(restored, "__dict__", state)
    object.__setattr__(restored, "__pydantic_extra__", extra)
    object.__setattr__(restored, "__pydantic_fields_set__", set(fields_set))
    object.__setattr__(restored, "__pydantic_private__", private)
    return restored


def _compare(kind: type, recorded: set[str], fields: set[str], optional: set[str]) -> None:
    missing, unknown = fields - optional - recorded, recorded - fields
    if missing:
        raise Changed(f"{kind.__qualname__} needs {sorted(missing)}, which its record does not hold")
    if unknown:
        raise Changed(f"{kind.__qualname__} no longer has {sorted(unknown)}, which its record holds")
