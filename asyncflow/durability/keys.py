"""Which item is this? A 16-byte key of run, place and content, the same in every process.

Equal content has equal keys whatever the order of a dict or a set, and `1`, `True`, `1.0` and `"1"` have
different ones. Items of equal content are told apart by their occurrence number, counted in input order, so
inserting or reordering other rows moves nobody's key. BLAKE2b, 128 bits: no two of
a billion items meet by chance.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from hashlib import blake2b
from json.encoder import encode_basestring_ascii as quoted
from pathlib import PurePath
from typing import Any
from uuid import UUID

from asyncflow.durability.seen import Seen
from asyncflow.errors import DuplicateKeyError, KeyNeededError


class Undigestable(TypeError):
    """An object with no content to be known by."""


def canonical(value: Any) -> str:
    """One text for equal content, different texts for different content or types.

    Raises:
        Undigestable: If it holds an object that is only itself: a client, a file, a function.
    """
    kind = type(value)
    if kind is str:
        return quoted(value)
    if value is None or kind is bool or kind is int:
        return str(value) if kind is not int or -_BIG < value < _BIG else hex(value)
    if kind is float:
        return repr(value)
    if kind is dict:
        pairs = [f"{canonical(key)}:{canonical(part)}" for key, part in value.items()]
        pairs.sort()
        return "{" + ",".join(pairs) + "}"
    if kind is list:
        return "[" + ",".join([canonical(part) for part in value]) + "]"
    if kind is tuple:
        return "(" + ",".join([canonical(part) for part in value]) + ")"
    return _of_object(value)


#: Above, digits cost quadratic time, and Python may refuse to write them.
_BIG = 1 << 2000


def _of_object(value: Any) -> str:
    kind = type(value)
    if kind in _TEXTS:
        return _TEXTS[kind](value)
    if isinstance(value, enum.Enum):
        return f"enum {kind.__qualname__}.{value.name if value.name else value.value}"
    if isinstance(value, (set, frozenset)):
        return (
            f"{'set' if isinstance(value, set) else 'frozenset'}<{','.join(sorted(map(canonical, value)))}>"
        )
    if dataclasses.is_dataclass(kind):
        state = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.compare}
        return f"{kind.__qualname__}{canonical(state)}"
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return f"{kind.__qualname__}{canonical({**value.__dict__, **(value.__pydantic_extra__ or {})})}"
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)) and not value.dtype.hasobject:
        content = blake2b(numpy.ascontiguousarray(value).tobytes(), digest_size=16).hexdigest()
        return f"array {type(value).__name__} {value.dtype.str} {value.shape} {content}"
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, (pandas.DataFrame, pandas.Series)):
        return _of_frame(pandas, value)
    if isinstance(value, PurePath):
        return f"path {quoted(str(value))}"
    if isinstance(value, Mapping):
        return f"{kind.__qualname__}{canonical(dict(value))}"
    # Subclasses of what is known: rows of a table are named tuples, time stamps are datetimes.
    if isinstance(value, date):
        return f"{kind.__qualname__} {value.isoformat()}"
    exact: Any
    for exact in (tuple, list, str, int, float, bytes):
        if isinstance(value, exact):
            return f"{kind.__qualname__}{canonical(exact(value))}"
    raise Undigestable(f"{kind.__module__}.{kind.__qualname__}")


def _of_frame(pandas: Any, value: Any) -> str:
    """A table by its names, types and rows: what `read_csv(chunksize=…)` gives is an item too."""
    columns = value.items() if isinstance(value, pandas.DataFrame) else [(value.name, value)]
    described = [f"{canonical(name)} {column.dtype}" for name, column in columns]
    try:
        rows = pandas.util.hash_pandas_object(value, index=True).to_numpy()
    except TypeError:  # lists or the like in its cells
        raise Undigestable(f"{type(value).__module__}.{type(value).__qualname__} of objects") from None
    content = blake2b(rows.tobytes(), digest_size=16).hexdigest()
    return f"{type(value).__qualname__} {value.shape} {','.join(described)} {content}"


_TEXTS: dict[type, Callable[[Any], str]] = {
    bytes: lambda value: "b" + value.hex(),
    bytearray: lambda value: "bytearray " + value.hex(),
    complex: lambda value: f"complex {value!r}",
    datetime: lambda value: f"datetime {value.isoformat()} {value.fold}",
    date: lambda value: "date " + value.isoformat(),
    time: lambda value: f"time {value.isoformat()} {value.fold}",
    timedelta: lambda value: f"timedelta {value.days} {value.seconds} {value.microseconds}",
    Decimal: lambda value: f"decimal {value}",
    UUID: lambda value: f"uuid {value}",
    range: lambda value: f"range {value.start} {value.stop} {value.step}",
}


class PlaceKeys:
    """The keys of one place: a node's path, the parameters of the runs around it, and the visit.

    Args:
        run: What tells runs apart.
        key: The user's function from an item to its key, or None: the content is the key.

    Attributes:
        place: The place as a positive 63-bit integer.
    """

    __slots__ = ("_base", "_key", "_path", "_seen", "place")

    def __init__(self, run: str, path: tuple[str, ...], visit: int, key: Callable[[Any], Any] | None) -> None:
        self._path = path
        self._key = key
        self._base = blake2b(canonical((run, path, visit)).encode("ascii"), digest_size=16)
        self.place = int.from_bytes(self._base.digest()[:8], "big") >> 1
        self._seen = Seen()

    def item(self, item: Any) -> bytes:
        """The key of the next item, in input order.

        Raises:
            KeyNeededError: If it has no content to be known by, and no `key` was given.
            DuplicateKeyError: If the user's key came before. (A chance of 10⁻⁷ per million keys that a key
                is refused although it is new: 64 bits of each are kept, to save memory.)
        """
        if self._key is None:
            digest = self._digest(item, item)
            number = self._seen.add(digest)
            return digest if number == 1 else blake2b(digest + b"#%d" % number, digest_size=16).digest()
        key = self._named(self._key, item)
        digest = self._digest(key, item)
        if self._seen.add(digest) > 1:
            raise DuplicateKeyError(
                f"{self.label}: the key {key!r} came twice; two items cannot share a record. Make `key` "
                "return something unique, or leave it out: the content is then the key, counted"
            )
        return digest

    def single(self, prep_res: Any) -> bytes:
        """The key of a plain node's one item: what `prep` returned, or its user's key."""
        return self._digest(prep_res if self._key is None else self._named(self._key, prep_res), prep_res)

    def action(self) -> bytes:
        """The key of what `post` returned."""
        return self._hash("/action")  # no canonical text begins with a slash

    @property
    def label(self) -> str:
        """The place as people know it."""
        return " / ".join(self._path)

    def _named(self, key: Callable[[Any], Any], item: Any) -> Any:
        try:
            return key(item)
        except Exception as exc:
            exc.add_note(f"asyncflow: {self.label}: raised by key, for the item {_short(item)}")
            raise

    def _digest(self, content: Any, item: Any) -> bytes:
        try:
            return self._hash(canonical(content))
        except Undigestable as exc:
            subject = "this item" if self._key is None else "the key of this item"
            raise KeyNeededError(
                f"{self.label}: {subject} holds a {exc}, which has no content to know it by in another "
                f"process: {_short(item)}. {self._advice()}"
            ) from None
        except RecursionError:
            raise KeyNeededError(
                f"{self.label}: this item contains itself or is nested too deeply to be digested. "
                f"{self._advice()}"
            ) from None

    def _advice(self) -> str:
        if self._key is not None:
            return "Have key return plain data: an id, a path"
        return "Give it a name (an id, a path): key=, a function of the item, or a node's method key(item)"

    def _hash(self, text: str) -> bytes:
        hasher = self._base.copy()
        hasher.update(text.encode("utf-8", "surrogatepass"))
        return hasher.digest()


def _short(value: Any, size: int = 120) -> str:
    try:
        text = repr(value)
    except Exception as exc:
        text = f"<{type(value).__qualname__}, whose repr raises {type(exc).__name__}>"
    return text if len(text) <= size else text[: size - 1] + "…"
