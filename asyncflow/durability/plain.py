"""A record for people and for files: values as plain JSON, whatever classes they were of.

What comes back to a program is the `Codec`'s; here nothing is declared and nothing is restored. A dataclass
or a model is the dict of its fields, a tuple or a set a list, a date its ISO 8601 text, bytes are Base64, an
array is nested lists.
"""

from __future__ import annotations

import json
from typing import Any

from asyncflow.durability import arrays
from asyncflow.durability.codec import LOADERS


def plain(data: bytes) -> Any:
    """The value of a record's `data`.

    Example:
        >>> plain(b'{"$as":["Point",{"x":1,"y":{"$tuple":[2,3]}}]}')
        {'x': 1, 'y': [2, 3]}
        >>> plain(b'{"$dict":[[1,"one"],[{"$tuple":[1,2]},"two"]]}')
        {'1': 'one', '[1, 2]': 'two'}
    """
    return _decoder.decode(data.decode())


def _untag(found: dict[str, Any]) -> Any:
    if len(found) != 1:
        return found
    ((tag, body),) = found.items()
    if tag[:1] != "$":
        return found
    if tag == "$dict":
        return {key if isinstance(key, str) else json.dumps(key): value for key, value in body}
    if tag == "$as":
        return _fields(body[1])
    if tag == "$by":
        return body[1]
    if tag in ("$tuple", "$set", "$frozenset"):
        return body
    if tag in ("$npy", "$scalar"):
        return arrays.load(body).tolist()
    if tag == "$timedelta":
        return LOADERS[tag](body).total_seconds()
    if tag in ("$int", "$float", "$str"):
        return LOADERS[tag](body)
    if tag == "$datetime" and isinstance(body, list):
        return f"{LOADERS[tag](body).isoformat()}[{body[1]}]"
    if tag == "$complex":
        return str(LOADERS[tag](body))
    return body.removesuffix("+fold") if isinstance(body, str) else body


def _fields(body: Any) -> Any:
    """Of a pydantic model only the values: what it was set from is not for people."""
    if isinstance(body, list) and len(body) == 4 and isinstance(body[0], dict) and isinstance(body[2], list):
        return {**body[0], **(body[1] or {})}
    return body


_decoder = json.JSONDecoder(object_hook=_untag)
