"""`SharedView` and `isolate=True`."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow import AsyncNode, AsyncParallelBatchFlow
from asyncflow.graph.view import SharedView

KEYS = st.integers(0, 4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), KEYS, st.integers()),
        st.tuples(st.sampled_from(["delete", "pop", "setdefault", "clear", "popitem"]), KEYS, st.integers()),
    )
)


def do(mapping, step):
    what, key, value = step
    try:
        if what == "set":
            mapping[key] = value
        elif what == "delete":
            del mapping[key]
        elif what == "pop":
            return mapping.pop(key)
        elif what == "setdefault":
            return mapping.setdefault(key, value)
        elif what == "clear":
            mapping.clear()
        elif mapping:
            del mapping[next(iter(mapping))]
    except KeyError:
        return KeyError


@given(st.dictionaries(KEYS, st.integers()), STEPS, st.integers(1, 3))
def test_a_view_is_a_dict_of_its_own(start, steps, depth):
    """Whatever is done to a view, nested or not, it reads as a copy would; beneath nothing changes."""
    view, model = dict(start), dict(start)
    beneath = view
    for _ in range(depth):
        view = SharedView(view)
    for step in steps:
        if step[0] == "popitem":
            if model:
                key = next(iter(view))
                del view[key], model[key]
            continue
        assert do(view, step) == do(model, step)
    assert dict(view) == model and len(view) == len(model) and set(view) == set(model)
    assert all((key in view) is (key in model) for key in range(6))
    assert view.get(9, "none") == "none" and bool(view) is bool(model) and view == model
    assert beneath == start
    assert isinstance(view, MutableMapping) and repr(view) == f"SharedView({dict(view)!r})"


def test_a_view_reads_through_and_is_shallow():
    """Later writes beneath are seen unless the view has its own; a list inside is the same list."""
    shared = {"list": []}
    view = SharedView(shared)
    view["own"] = 1
    shared["late"] = 2
    view["list"].append(3)
    assert dict(view) == {"list": [3], "late": 2, "own": 1}
    assert shared == {"list": [3], "late": 2} and view.changes == {"own": 1}


class Sets(AsyncParallelBatchFlow):
    async def prep_async(self, shared):
        return [{"i": i} for i in range(5)]

    async def post_async(self, shared, prep_res, exec_res):
        shared["views"] = exec_res


class Writes(AsyncNode):
    async def exec_async(self, prep_res):
        await asyncio.sleep(0)
        if self.params["i"] == 3 and prep_res is None and getattr(self, "fails", False):
            raise ValueError

    async def post_async(self, shared, prep_res, exec_res):
        shared["mine"] = self.params["i"]


class Reads(AsyncNode):
    async def exec_async(self, prep_res):
        await asyncio.sleep(0)

    async def post_async(self, shared, prep_res, exec_res):
        shared["read"] = (shared["mine"], shared["base"])


def test_isolate_gives_each_run_a_view():
    """Writes stay in the run, reads fall through, and post gets the views in the order of the sets."""
    writes = Writes()
    writes >> Reads()
    shared = {"base": "b"}
    asyncio.run(Sets(start=writes, isolate=True).run_async(shared))
    assert [dict(view)["read"] for view in shared.pop("views")] == [(i, "b") for i in range(5)]
    assert shared == {"base": "b"}


def test_isolation_nests():
    """A view of a view: the inner runs' writes are in the inner views only."""
    inner = Sets(start=Writes(), isolate=True)
    shared = {}
    asyncio.run(Sets(start=inner, isolate=True).run_async(shared))
    outer = shared["views"]
    assert list(shared) == ["views"]
    assert [[view["mine"] for view in one["views"]] for one in outer] == [list(range(5))] * 5
    assert all("mine" not in one for one in outer)


def test_isolate_under_continue():
    """A failed run stands among the views as a Failed."""
    node = Writes()
    node.fails = True
    shared = {}
    asyncio.run(Sets(start=node, isolate=True, on_error="continue").run_async(shared))
    kinds = [type(entry).__name__ for entry in shared["views"]]
    assert kinds == ["SharedView"] * 3 + ["Failed", "SharedView"]


@pytest.mark.parametrize("shared", [[], 3, object()], ids=str)
def test_isolate_needs_a_mapping(shared):
    """Anything else is refused with its type."""
    with pytest.raises(TypeError, match=f"has to be a dict then, not {type(shared).__name__}"):
        asyncio.run(Sets(start=Writes(), isolate=True).run_async(shared))
