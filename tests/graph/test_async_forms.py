"""Async classes with plain parts: every combination, and which form counts."""

from __future__ import annotations

import asyncio
import itertools
import threading

import pytest

from asyncflow import (
    AsyncBatchNode,
    AsyncFlow,
    AsyncNode,
    AsyncParallelBatchFlow,
    AsyncParallelBatchNode,
    BatchNode,
    Node,
)

PARTS = ("prep", "exec", "exec_fallback", "post")


def step(kind, plain, log):
    """A class whose parts in `plain` are plain, the others async. exec fails; the fallback mends."""

    def here(part):
        log.append((part, threading.get_ident()))

    def prep(self, shared):
        here("prep")
        return [1] if issubclass(kind, BatchNode) else 1

    def exec(self, item):
        here("exec")
        raise ValueError(item)

    def exec_fallback(self, item, exc):
        here("exec_fallback")
        return item + 1

    def post(self, shared, prep_res, exec_res):
        here("post")
        shared["result"] = exec_res

    def later(function):
        async def part(*args):
            await asyncio.sleep(0)
            return function(*args)

        return part

    parts = {
        name if name in plain else f"{name}_async": function if name in plain else later(function)
        for name, function in (
            ("prep", prep),
            ("exec", exec),
            ("exec_fallback", exec_fallback),
            ("post", post),
        )
    }
    return type("Own", (kind,), parts)


COMBINATIONS = [plain for size in range(5) for plain in itertools.combinations(PARTS, size)]


@pytest.mark.parametrize("kind", [AsyncNode, AsyncBatchNode, AsyncParallelBatchNode])
@pytest.mark.parametrize("plain", COMBINATIONS, ids=lambda plain: "+".join(plain) or "none")
@pytest.mark.parametrize("settings", [{}, {"max_retries": 2}, {"timeout": 30}], ids=str)
def test_every_combination(kind, plain, settings):
    """Each part may be plain or async; a plain exec leaves the loop, its plain fallback with it."""
    log, shared = [], {}
    asyncio.run(step(kind, plain, log)(**settings).run_async(shared))
    assert shared["result"] == ([2] if issubclass(kind, BatchNode) else 2)
    names = ["prep", *["exec"] * settings.get("max_retries", 1), "exec_fallback", "post"]
    assert [name for name, _ in log] == names
    moved = {name for name, thread in log if thread != threading.get_ident()}
    assert moved - {"exec_fallback"} == ({"exec"} if "exec" in plain else set())
    assert ("exec_fallback" in moved) is ({"exec", "exec_fallback"} <= set(plain))


class Async(AsyncNode):
    async def exec_async(self, prep_res):
        return "async"

    async def post_async(self, shared, prep_res, exec_res):
        return exec_res


class PlainAbove(Async):
    def exec(self, prep_res):
        return "plain"


class AsyncAbove(PlainAbove):
    async def exec_async(self, prep_res):
        return "async again"


class Mixin:
    def exec(self, prep_res):
        return "mixin"


class MixedIn(Mixin, Async):
    pass


class MixedBehind(Async, Mixin):
    pass


class Both(AsyncNode):
    def exec(self, prep_res):
        return "plain"

    async def exec_async(self, prep_res):
        return "async"

    post_async = Async.post_async


@pytest.mark.parametrize(
    "kind, result",
    [
        (Async, "async"),
        (PlainAbove, "plain"),
        (AsyncAbove, "async again"),
        (MixedIn, "mixin"),
        (MixedBehind, "async"),
        (Both, "async"),
    ],
)
def test_the_most_derived_form_counts(kind, result):
    """Of exec and exec_async the one in the most derived class; in one class the async one."""
    assert asyncio.run(kind().run_async({})) == result


def test_plain_parts_of_async_flows():
    """prep and post of an async flow or batch flow may be plain too."""

    class Own(AsyncFlow):
        def prep(self, shared):
            return "prepared"

        def post(self, shared, prep_res, exec_res):
            return f"{prep_res} {exec_res}"

    class Sets(AsyncParallelBatchFlow):
        def prep(self, shared):
            return [{}, {}]

        def post(self, shared, prep_res, exec_res):
            return f"{len(prep_res)} {exec_res}"

    assert asyncio.run(Own(start=Node()).run_async({})) == "prepared None"
    assert asyncio.run(Sets(start=Node()).run_async({})) == "2 None"


@pytest.mark.parametrize("settings", [{}, {"timeout": 60}, {"max_retries": 2}])
@pytest.mark.parametrize("part", ["prep_async", "exec_async", "exec_fallback_async", "post_async"])
@pytest.mark.parametrize("kind", [AsyncNode, AsyncBatchNode, AsyncParallelBatchNode])
def test_an_async_part_without_async_is_named(kind, part, settings):
    """`def exec_async` that returns a value cannot be awaited: the error names it and says what to write."""
    log = []
    cls = step(kind, set(), log)
    found = type("Own", (cls,), {part: lambda self, *args: [1]})(**settings)
    with pytest.raises(TypeError, match=f"^Own: {part} .*list.*`async def {part}`"):
        # what the fallback of `step` returns stands in for any error of exec
        if part == "exec_async":
            found.exec_fallback_async = reraise
        asyncio.run(found.run_async({}))


async def reraise(item, exc):
    raise exc


@pytest.mark.parametrize("part", ["prep_async", "post_async"])
def test_an_async_part_of_a_flow_without_async_is_named(part):
    """As for nodes."""
    flow = type("Own", (AsyncFlow,), {part: lambda self, *args: 7})(start=Node())
    with pytest.raises(TypeError, match=f"^Own: {part} .*int.*`async def {part}`"):
        asyncio.run(flow.run_async({}))


@pytest.mark.parametrize("settings", [{}, {"timeout": 60}])
@pytest.mark.parametrize("kind", [AsyncNode, AsyncBatchNode])
def test_plain_functions_that_return_awaitables_are_async_parts(kind, settings):
    """Only what cannot be awaited is refused, and a TypeError from inside what can be is left alone."""

    async def value_of(value):
        await asyncio.sleep(0)
        return value

    async def breaks():
        return len(7)

    class Own(kind):
        def prep_async(self, shared):
            return value_of([1, 2])

        def exec_async(self, item):
            return asyncio.ensure_future(value_of(item))

        def post_async(self, shared, prep_res, exec_res):
            return value_of(f"{exec_res}")

    assert asyncio.run(Own(**settings).run_async({})) == "[1, 2]"
    for part in ("prep_async", "exec_async", "post_async"):
        node = type("Broken", (Own,), {part: lambda self, *args: breaks()})(**settings)
        with pytest.raises(TypeError, match=r"^object of type 'int' has no len"):
            asyncio.run(node.run_async({}))
        node = type("Broken", (Own,), {part: lambda self: None})(**settings)
        with pytest.raises(TypeError, match="positional argument"):
            asyncio.run(node.run_async({}))
