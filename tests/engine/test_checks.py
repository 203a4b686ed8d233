"""Wrong arguments: refused with a clear text, before anything runs."""

from __future__ import annotations

import asyncio
import gc
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest

from asyncflow import AsyncFlow, AsyncNode, amap, run_sync, stream
from asyncflow import run as run_flow
from asyncflow.engine.checks import is_async, name_of

ran: list[Any] = []


async def record(item: Any) -> None:
    ran.append(item)


def source() -> Any:
    ran.append("pulled")
    yield 1


@pytest.fixture(autouse=True)
def nothing_ran() -> Any:
    ran.clear()
    yield
    assert ran == []


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"func": None}, TypeError, "func=None cannot be called"),
    ({"func": "print"}, TypeError, "func='print' cannot be called"),
    ({"items": None}, TypeError, "items must be something to iterate over"),
    ({"items": 5}, TypeError, "not int: 5"),
    ({"items": "text"}, TypeError, "character by character"),
    ({"items": b"text"}, TypeError, "is one bytes"),
    ({"items": pd.DataFrame({"a": [1]})}, TypeError, r"column by column; its rows are frame.itertuples"),
    ({"items": source}, TypeError, "not function"),
    ({"items": list}, TypeError, "class list"),
    ({"concurrency": 0}, ValueError, "at least 1"),
    ({"concurrency": -3}, ValueError, "at least 1"),
    ({"concurrency": 1.5}, TypeError, "whole number"),
    ({"concurrency": True}, TypeError, "whole number"),
    ({"concurrency": None}, TypeError, "whole number"),
    ({"concurrency": "64"}, TypeError, "whole number"),
    ({"retry": 3}, TypeError, "give a Retry"),
    ({"retry": OSError}, TypeError, "give a Retry"),
    ({"timeout": 0}, ValueError, "timeout=0"),
    ({"timeout": -1}, ValueError, "above 0"),
    ({"timeout": float("nan")}, ValueError, "above 0"),
    ({"timeout": "3"}, TypeError, "number of seconds"),
    ({"timeout": True}, TypeError, "number of seconds"),
    ({"total_timeout": 0.0}, ValueError, "total_timeout=0.0"),
    ({"total_timeout": [3]}, TypeError, "total_timeout"),
    ({"stop": True}, TypeError, "give a Stop"),
    ({"observers": [type("Own", (), {})]}, TypeError, "Own is a class; make an instance"),
    ({"on_error": "ignore"}, ValueError, '"raise", "continue"'),
    ({"on_error": 0}, ValueError, "on_error=0"),
    ({"on_error": -1}, ValueError, "on_error=-1"),
    ({"on_error": 0.0}, ValueError, "share"),
    ({"on_error": 1.5}, ValueError, "share"),
    ({"on_error": float("nan")}, ValueError, "share"),
    ({"on_error": True}, TypeError, "on_error=True"),
    ({"on_error": None}, TypeError, "on_error=None"),
    ({"run_id": "1"}, ValueError, "give store="),
    ({"run_id": 7, "store": "runs.db"}, TypeError, "run_id=7"),
    ({"key": "id"}, TypeError, "key='id'"),
    ({"limits": 5}, TypeError, "give a Limits"),
    ({"observers": print}, TypeError, "list of observers"),
    ({"observers": None}, TypeError, "observers=None"),
]


@pytest.mark.parametrize(("wrong", "error", "text"), WRONG, ids=lambda value: str(value)[:40])
def test_amap_and_stream_refuse_wrong_arguments(wrong: Any, error: Any, text: str) -> None:
    """Each wrong argument is a TypeError or ValueError that says what to do; nothing is pulled or called."""
    arguments = {"func": record, "items": source(), **wrong}

    async def main() -> None:
        with pytest.raises(error) as refusal:
            await amap(**arguments)
        assert text in str(refusal.value)

    asyncio.run(main())
    with pytest.raises(error) as refusal:
        stream(**arguments)  # at once, not at the first read
    assert text in str(refusal.value)


def test_a_call_in_the_place_of_the_function_is_refused_and_not_left_unawaited() -> None:
    """`amap(f(x), items)` says to pass the function; the coroutine is closed, so nothing else complains."""

    async def main() -> None:
        with pytest.raises(TypeError, match="without calling it"):
            await amap(record(1), [1])  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="without calling it"):
            stream(record(1), [1])  # type: ignore[arg-type]

    asyncio.run(main())
    gc.collect()  # a coroutine that was never awaited would complain here


def test_run_refuses_what_is_no_flow() -> None:
    """A class, a function, a coroutine, nothing: each a TypeError that says so; none is left unawaited."""
    flow = AsyncFlow(start=AsyncNode())

    async def main() -> None:
        for wrong, text in (
            (AsyncFlow, "make an instance"),
            (record, "not a flow"),
            (None, "not a flow"),
            (flow.run_async({}), "pass the flow itself"),
        ):
            with pytest.raises(TypeError, match=text):
                await run_flow(wrong)  # type: ignore[arg-type]
        for setting, error in (
            ({"concurrency": 0}, ValueError),
            ({"concurrency": "2"}, TypeError),
            ({"observers": print}, TypeError),
            ({"run_id": "7"}, ValueError),
        ):
            with pytest.raises(error):
                await run_flow(flow, {}, **setting)  # type: ignore[arg-type]

    asyncio.run(main())
    with pytest.raises(TypeError, match="pass the flow itself"):
        run_sync(flow.run_async({}))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="concurrency=0"):
        run_sync(flow, {}, concurrency=0)


def test_without_a_loop_the_error_names_the_synchronous_door() -> None:
    """Driving `amap` by hand outside a loop says what to use."""
    with pytest.raises(RuntimeError, match="run_sync"):
        amap(record, [1]).send(None)  # type: ignore[arg-type]


def test_async_callables_are_known_in_any_wrapping() -> None:
    """Functions, methods, partials, and objects whose `__call__` is async."""

    class Callable:
        async def __call__(self, item: int) -> None: ...

        async def method(self, item: int) -> None: ...

    for function in (record, partial(record), Callable(), Callable().method, partial(partial(Callable()))):
        assert is_async(function)
    for function in (print, len, np.sum, partial(print), Callable):
        assert not is_async(function)
    assert name_of(partial(record)) == "record" and name_of(Callable()) == "Callable"
