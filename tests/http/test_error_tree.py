"""asyncflow/errors.py, the HTTP part: drawn as it is, and every class survives pickle with its fields."""

from __future__ import annotations

import pickle
import re

import pytest

from asyncflow import errors
from asyncflow.policy.retry import Retry


def below(kind: type[BaseException]) -> list[type[BaseException]]:
    return [found for one in kind.__subclasses__() for found in (one, *below(one))]


def test_the_drawing_is_the_tree() -> None:
    """Each class hangs in the drawing where it hangs in the code."""
    drawn: dict[str, str] = {}
    path: list[tuple[int, str]] = [(-1, "AsyncflowError")]
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"([ │]*)[├└]─ (\w+)", line)
        if found:
            depth = len(found[1])
            while path[-1][0] >= depth:
                path.pop()
            drawn[found[2]] = path[-1][1]
            path.append((depth, found[2]))
    ours = {one for one in below(errors.AsyncflowError) if one.__module__ == errors.__name__}
    assert set(drawn) == {one.__name__ for one in ours}
    for one in ours:
        assert issubclass(one, getattr(errors, drawn[one.__name__]))


@pytest.mark.parametrize("kind", [errors.HTTPError, *below(errors.HTTPError)])
def test_http_errors(kind: type[errors.HTTPError]) -> None:
    """Fields survive pickle; the transient ones, and only they, are repeated by a Retry."""
    error = kind("m", method="GET", url="u", status=500, retry_after=1.5, exhausted=True, attempts=3)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == "m" and vars(again) == vars(error)
    assert Retry().repeats(kind("m")) is issubclass(kind, errors.TransientError)
    assert not Retry(on=Exception).repeats(error)


def test_model_output_error() -> None:
    """The same for the error of structured output."""
    error = errors.ModelOutputError("m", text="t", problems=("p",), usage=(1, 2))
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error) and error.exhausted
