"""The drawn tree of errors is the real one, and each error survives pickle."""

from __future__ import annotations

import pickle
import re
from typing import Any

import pytest

from asyncflow import errors
from asyncflow.outcome import Failed, Ok


def real() -> dict[str, type[BaseException]]:
    return {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, BaseException)
    }


def test_the_drawn_tree_is_the_real_tree() -> None:
    """Every class stands in the docstring under its own parent, with what else it is in brackets."""
    drawn: dict[str, str] = {}
    parents: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│├└─ ]*)(\w+Error)\b(.*)", line)
        if not found:
            continue
        depth = len(found[1]) // 3
        parents[depth:] = [found[2]]
        drawn[found[2]] = parents[depth - 1] if depth else "Exception"
        kind = real()[found[2]]
        brackets = re.search(r"\((an? \w+(?:, an? \w+)*)\)", found[3])
        others = re.findall(r"an? (\w+)", brackets[1]) if brackets else []
        assert [base.__name__ for base in kind.__bases__[1:]] == others
    assert drawn == {name: kind.__bases__[0].__name__ for name, kind in real().items()}


ATTRIBUTES: dict[str, dict[str, Any]] = {
    "ItemTimeoutError": {"scope": "total", "seconds": 2.5},
    "TooManyFailuresError": {"outcomes": (Ok(1), Failed(ValueError("x"), 3))},
    "TransientError": {"retry_after": 3.0, "exhausted": True},
}


@pytest.mark.parametrize("name", real())
def test_each_error_survives_pickle(name: str) -> None:
    """With its message, its attributes, its notes; and it can be made without any argument."""
    error = real()[name]("message", **ATTRIBUTES.get(name, {}))
    error.add_note("a note")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and str(copy) == "message" and copy.__notes__ == ["a note"]
    for attribute, value in ATTRIBUTES.get(name, {}).items():
        if attribute == "outcomes":
            assert copy.outcomes[0] == value[0] and str(copy.outcomes[1].error) == "x"
        else:
            assert getattr(copy, attribute) == value
    real()[name]()
