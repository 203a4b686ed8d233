"""Values to JSON bytes and back, exactly: what was recorded is what is read, of the same types.

What JSON has is written as it is. Everything else is a tag, an object of one key that begins with `$`:
`{"$tuple": [1, 2]}`. Nothing stored is ever executed or looked up by name: the tags are the ones below, and
a class (`$as`) is one of those that the result's declared type reaches (see `shapes`). A value that could
not be read back is refused when it is encoded.
"""

from __future__ import annotations

import json
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from json.encoder import encode_basestring
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

from asyncflow.durability import arrays, shapes

#: Ints below are written as digits; Python may refuse to read more (at least 640 digits are allowed).
_BIG = 1 << 2000
_ATOMS = frozenset({str, bool, type(None)})


class Unstorable(TypeError):
    """A value, or a part of it, has no form that could be read back. The journal adds node and item."""


class Unreadable(ValueError):
    """A record does not fit the program: a class it needs is not declared, or has other fields."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """How to record a class that the codec does not know.

    Args:
        type: Exactly this class; subclasses need their own.
        name: What records call it, stable across versions of the program.
        dump: From an object to a value that the codec knows.
        load: Back again.
    """

    type: type
    name: str
    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]


class Codec:
    """Encodes and decodes the results of one node.

    Args:
        result_type: The declared type of results: classes in it, and in the fields of these, are restored.
        encoders: For classes of other libraries.
        also: More classes that count as declared.
    """

    def __init__(
        self, result_type: Any = None, *, encoders: Iterable[Encoder] = (), also: Iterable[Any] = ()
    ) -> None:
        self._shapes = shapes.reachable((result_type, *also))
        self._names = {shape.type: name for name, shape in self._shapes.items()}
        self._encoders = {encoder.type: encoder for encoder in encoders}
        self._loaders = {encoder.name: encoder for encoder in encoders}
        self._tagged = json.JSONDecoder(object_hook=self._untag).decode

    def encode(self, value: Any) -> bytes:
        """JSON as UTF-8.

        Raises:
            Unstorable: If any part of it could not be read back.
        """
        try:
            if type(value) is str:
                return encode_basestring(value).encode()
            if _is_plain(value):
                return _to_text(value).encode()
        except UnicodeEncodeError:
            pass  # a lone surrogate: the long way
        except RecursionError:
            raise Unstorable("it contains itself, or is nested too deeply") from None
        try:
            return _to_text(self._tag(value, "result")).encode()
        except RecursionError:
            raise Unstorable("it contains itself, or is nested too deeply") from None

    def decode(self, data: bytes) -> Any:
        """The value that was encoded.

        Raises:
            Unreadable: If a class it holds is not declared any more, or its fields have changed.
        """
        text = data.decode()
        return self._tagged(text) if '{"$' in text else _from_text(text)

    def _tag(self, value: Any, where: str) -> Any:
        kind = type(value)
        if kind is str:
            return value if _is_text(value) else {"$str": _base64(value.encode("utf-8", "surrogatepass"))}
        if kind in _ATOMS:
            return value
        if kind is int:
            return value if -_BIG < value < _BIG else {"$int": hex(value)}
        if kind is float:
            return value if value - value == 0.0 else {"$float": repr(value)}
        if kind is list:
            return [self._tag(part, f"{where}[{i}]") for i, part in enumerate(value)]
        if kind is dict:
            return self._tag_dict(value, where)
        if kind in _SEQUENCES:
            return {_SEQUENCES[kind]: [self._tag(part, f"{where}[{i}]") for i, part in enumerate(value)]}
        if kind in _SCALARS:
            name, dump = _SCALARS[kind]
            return {name: dump(value)}
        if kind in self._encoders:
            encoder = self._encoders[kind]
            return {"$by": [encoder.name, self._tag(encoder.dump(value), where)]}
        if kind in self._names:
            name = self._names[kind]
            return {"$as": [name, self._tag(self._shapes[name].dump(value), where)]}
        if isinstance(value, PurePath) and isinstance(value, Path):
            return {"$path": self._tag(str(value), where)}
        array = arrays.dump(value)
        if array is not None:
            return {array[0]: array[1]}
        raise Unstorable(f"{where} is {_describe(value)}")

    def _tag_dict(self, value: dict[Any, Any], where: str) -> Any:
        if all(type(key) is str and _is_text(key) for key in value) and not _looks_like_tag(value):
            return {key: self._tag(part, f"{where}[{key!r}]") for key, part in value.items()}
        return {
            "$dict": [
                [self._tag(key, f"a key of {where}"), self._tag(part, f"{where}[{key!r}]")]
                for key, part in value.items()
            ]
        }

    def _untag(self, found: dict[str, Any]) -> Any:
        if not _looks_like_tag(found):
            return found
        ((tag, body),) = found.items()
        if tag == "$as":
            shape = self._shapes.get(body[0])
            if shape is None:
                raise Unreadable(f"the record holds a {body[0]}, which the result's type does not declare")
            try:
                return shape.load(body[1])
            except shapes.Changed as exc:
                raise Unreadable(str(exc)) from None
        if tag == "$by":
            if body[0] not in self._loaders:
                raise Unreadable(f"the record needs the encoder {body[0]!r}, which was not given")
            return self._loaders[body[0]].load(body[1])
        if tag not in LOADERS:
            raise Unreadable(f"the record holds {tag}, which this version does not know")
        return LOADERS[tag](body)


def _is_plain(value: Any) -> bool:
    """Whether JSON gives back exactly this. Subclasses are not plain: JSON would forget them."""
    kind = type(value)
    if kind in _ATOMS:
        return True
    if kind is int:
        return -_BIG < value < _BIG  # type: ignore[no-any-return]
    if kind is float:
        return value - value == 0.0  # type: ignore[no-any-return]
    if kind is list:
        return all(map(_is_plain, value))
    if kind is dict:
        if _looks_like_tag(value):
            return False
        return all(type(key) is str for key in value) and all(map(_is_plain, value.values()))
    return False


def _looks_like_tag(value: dict[Any, Any]) -> bool:
    return len(value) == 1 and str(next(iter(value)))[:1] == "$"


def _is_text(value: str) -> bool:
    """Whether UTF-8 can hold it: a lone half of a surrogate pair cannot be."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _describe(value: Any) -> str:
    """What it is, and what would make it storable."""
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if shapes.is_shape(kind):
        return (
            f"a {name}, which the declared type does not mention: annotate what exec returns "
            f"(`-> {kind.__name__}`, also inside list[...], `|`, fields), or pass result_type="
        )
    if arrays.is_array(value):
        return f"an array of {value.dtype} that npy can only write as pickle: give it a plain dtype"
    return (
        f"a {name}, which has no stored form: return plain data, or a dataclass or pydantic model that the "
        "annotation names"
    )


def _time(value: Any) -> str:
    """ISO 8601, with the second of two equal local times (fold) marked; zones become their offset."""
    text: str = value.isoformat()
    return text + "+fold" if value.fold else text


def _zoned(value: datetime | time) -> bool:
    return value.tzinfo is not None and type(value.tzinfo).__name__ == "ZoneInfo"


def _dump_datetime(value: datetime) -> Any:
    if _zoned(value):
        return [_time(value.replace(tzinfo=None)), str(value.tzinfo)]
    if value.tzinfo is not None and type(value.tzinfo).__module__ != "datetime":
        raise Unstorable(
            f"a datetime with the time zone {type(value.tzinfo).__qualname__}: use zoneinfo or UTC"
        )
    return _time(value)


def _load_datetime(body: Any) -> datetime:
    if isinstance(body, list):
        from zoneinfo import ZoneInfo

        return _load_datetime(body[0]).replace(tzinfo=ZoneInfo(body[1]))
    text = body.removesuffix("+fold")
    return datetime.fromisoformat(text).replace(fold=int(text != body))


def _dump_time(value: time) -> Any:
    if value.tzinfo is not None and type(value.tzinfo).__module__ != "datetime":
        raise Unstorable("a time with a named time zone: keep the zone beside it")
    return _time(value)


def _load_time(body: str) -> time:
    text = body.removesuffix("+fold")
    return time.fromisoformat(text).replace(fold=int(text != body))


_SEQUENCES: dict[type, str] = {tuple: "$tuple", set: "$set", frozenset: "$frozenset"}

_SCALARS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    bytes: ("$bytes", _base64),
    bytearray: ("$bytearray", _base64),
    complex: ("$complex", lambda value: [repr(value.real), repr(value.imag)]),
    datetime: ("$datetime", _dump_datetime),
    date: ("$date", date.isoformat),
    time: ("$time", _dump_time),
    timedelta: ("$timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    Decimal: ("$decimal", str),
    UUID: ("$uuid", str),
}

LOADERS: dict[str, Callable[[Any], Any]] = {
    "$dict": dict,
    "$tuple": tuple,
    "$set": set,
    "$frozenset": frozenset,
    "$str": lambda body: b64decode(body).decode("utf-8", "surrogatepass"),
    "$int": lambda body: int(body, 16),
    "$float": float,
    "$bytes": b64decode,
    "$bytearray": lambda body: bytearray(b64decode(body)),
    "$complex": lambda body: complex(float(body[0]), float(body[1])),
    "$datetime": _load_datetime,
    "$date": date.fromisoformat,
    "$time": _load_time,
    "$timedelta": lambda body: timedelta(*body),
    "$decimal": Decimal,
    "$uuid": UUID,
    "$path": Path,
    "$npy": arrays.load,
    "$scalar": arrays.load_scalar,
}

_from_text = json.JSONDecoder().decode


def _to_text_with(make: Any) -> Callable[[Any], str]:
    if make is None:  # no accelerator: not CPython
        return json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
    # What JSONEncoder.encode builds anew for each call. Cycles have ended in a RecursionError before.
    chunks = make(None, None, encode_basestring, None, ":", ",", False, False, False)
    return lambda value: "".join(chunks(value, 0))


_to_text = _to_text_with(getattr(sys.modules["json.encoder"], "c_make_encoder", None))
