"""What is deliberately other than in PocketFlow 0.0.3; each test shows PocketFlow's behaviour first."""

from __future__ import annotations

import asyncio
import re
import threading
import warnings
from pathlib import Path

import pocketflow
import pytest

import asyncflow
from asyncflow.errors import ActionError, CoroutineReturnedError, MissingStartError, StepLimitError

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "migration" / "from-pocketflow.md"


def parallel(library, **parts):
    """A parallel batch node of the library with these parts."""
    return type("Parallel", (library.AsyncParallelBatchNode,), parts)


def nodes_of(library):
    return library.Node(), library.Node()


# Attempts ----------------------------------------------------------------------


def test_cur_retry_belongs_to_the_item():
    """In parallel, items see their own attempt."""

    def seen(library):
        found = []

        async def prep_async(self, shared):
            return range(4)

        async def exec_async(self, item):
            await asyncio.sleep(0)
            found.append(self.cur_retry)
            if self.cur_retry < 2:
                raise ValueError(item)
            return item

        node = parallel(library, prep_async=prep_async, exec_async=exec_async)(max_retries=3)
        asyncio.run(node.run_async({}))
        return sorted(found)

    with pytest.raises(AttributeError):
        seen(pocketflow)
    assert seen(asyncflow) == [0] * 4 + [1] * 4 + [2] * 4


def test_cur_retry_of_a_plain_batch_on_threads():
    """A plain node shared by threads: the attempt is the item's."""
    shared = {}

    class Results(asyncflow.BatchNode):
        def prep(self, shared):
            return range(4)

        def exec(self, item):
            if self.cur_retry < item:
                raise ValueError(item)
            return self.cur_retry

        def post(self, shared, prep_res, exec_res):
            shared["results"] = exec_res

    Results(max_retries=4, concurrency=4).run(shared)
    assert shared["results"] == [0, 1, 2, 3]


def test_max_retries_below_one_is_refused():
    """PocketFlow skips exec without a word and hands None on."""
    seen = []
    node = pocketflow.Node(max_retries=0)
    node.exec = seen.append
    node.run({})
    assert seen == []
    with pytest.raises(ValueError, match="max_retries=1 for a single attempt"):
        asyncflow.Node(max_retries=0)


def test_an_exec_that_cancels_itself_fails_its_item():
    """A CancelledError that nobody asked for goes to the fallback, and never ends the whole run silently."""

    async def exec_async(self, item):
        raise asyncio.CancelledError

    async def prep_async(self, shared):
        return [1]

    async def exec_fallback_async(self, item, exc):
        return type(exc).__name__

    async def post_async(self, shared, prep_res, exec_res):
        return exec_res

    parts = {name: part for name, part in locals().items() if name.endswith("_async")}
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(parallel(pocketflow, **parts)().run_async({}))
    assert asyncio.run(parallel(asyncflow, **parts)().run_async({})) == ["ItemCancelledError"]


# Parallel ----------------------------------------------------------------------


def test_siblings_end_before_an_error_is_raised():
    """The first failure cancels the other items and waits for them; gather leaves them running."""

    def ended(library):
        log = []

        async def prep_async(self, shared):
            return ["fails", "runs"]

        async def exec_async(self, item):
            if item == "fails":
                await asyncio.sleep(0)
                raise ValueError(item)
            try:
                await asyncio.sleep(3600)
            finally:
                log.append("ended")

        async def main():
            with pytest.raises(ValueError):
                await parallel(library, prep_async=prep_async, exec_async=exec_async)().run_async({})
            return list(log)

        return asyncio.run(main())

    assert ended(pocketflow) == []
    assert ended(asyncflow) == ["ended"]


def test_parallel_work_is_bounded():
    """At most 64 items or runs at once, or `concurrency`; PocketFlow starts all of them."""

    def most(library, **settings):
        now = high = 0

        async def prep_async(self, shared):
            return range(200)

        async def exec_async(self, item):
            nonlocal now, high
            now += 1
            high = max(high, now)
            await asyncio.sleep(0)
            now -= 1

        asyncio.run(parallel(library, prep_async=prep_async, exec_async=exec_async)(**settings).run_async({}))
        return high

    assert most(pocketflow) == 200
    assert most(asyncflow) == 64
    assert most(asyncflow, concurrency=200) == 200
    assert most(asyncflow, concurrency=3) == 3


def test_context_variables_are_the_items_own():
    """What one item puts into a context variable the next does not see, in a sequential batch too."""
    from contextvars import ContextVar

    variable = ContextVar("variable", default="clean")

    def seen(library):
        found = []

        class Batch(library.AsyncBatchNode):
            async def prep_async(self, shared):
                return range(3)

            async def exec_async(self, item):
                found.append(variable.get())
                variable.set(item)

        asyncio.run(Batch().run_async({}))
        return found

    assert seen(pocketflow) == ["clean", 0, 1]
    assert seen(asyncflow) == ["clean"] * 3


# Empty and lazy sources --------------------------------------------------------


@pytest.mark.parametrize("name", ["AsyncBatchNode", "AsyncParallelBatchNode"])
def test_none_from_prep_async_is_empty(name):
    """As in the synchronous BatchNode."""

    async def post_async(self, shared, prep_res, exec_res):
        return exec_res

    def go(library):
        return asyncio.run(
            type("Batch", (getattr(library, name),), {"post_async": post_async})().run_async({})
        )

    with pytest.raises(TypeError):
        go(pocketflow)
    assert go(asyncflow) == []


def test_arrays_are_items():
    """A NumPy array is iterated over; PocketFlow asks for its truth."""
    import numpy as np

    def go(library):
        class Batch(library.BatchNode):
            def prep(self, shared):
                return np.arange(3)

            def exec(self, item):
                return int(item)

            def post(self, shared, prep_res, exec_res):
                return exec_res

        return Batch().run({})

    with pytest.raises(ValueError):
        go(pocketflow)
    assert go(asyncflow) == [0, 1, 2]


def test_a_table_is_refused():
    """To iterate over a DataFrame gives its column names; PocketFlow asks for its truth."""
    import pandas as pd

    def go(library):
        class Batch(library.BatchNode):
            def prep(self, shared):
                return pd.DataFrame({"a": [1, 2]})

        return Batch().run({})

    with pytest.raises(ValueError):
        go(pocketflow)
    with pytest.raises(TypeError, match="Batch: what prep returned is a DataFrame, .* frame.itertuples"):
        go(asyncflow)


def test_a_falsy_thing_that_is_no_source_is_refused():
    """0 or False from a batch node's prep is a mistake, not an empty list."""

    def go(library):
        class Batch(library.BatchNode):
            def prep(self, shared):
                return False

        return Batch().run({})

    assert go(pocketflow) is None
    with pytest.raises(TypeError, match="returned bool"):
        go(asyncflow)


def test_parameter_sets_are_checked():
    """A batch flow's prep returns dicts; pairs or one dict are errors that say so."""

    def go(library, given):
        class Sets(library.BatchFlow):
            def prep(self, shared):
                return given

        return Sets(start=library.Node()).run({})

    with pytest.raises(TypeError, match="not a mapping"):
        go(pocketflow, ["ab"])
    for given in (["ab"], {"file": 1}, "text", [[("a", 1)]], 3):
        with pytest.raises(TypeError, match="Sets: prep returned"):
            go(asyncflow, given)


# Actions and the graph ---------------------------------------------------------


@pytest.mark.parametrize("action", [3, True, ("a",), {"a": 1}, ["a"]], ids=str)
def test_an_action_that_is_not_a_string_is_an_error(action):
    """Where successors are looked up; PocketFlow warns and ends, or fails to hash it."""
    first, second = nodes_of(asyncflow)
    first.post = lambda shared, prep_res, exec_res: action
    first >> second
    with pytest.raises(
        ActionError, match=r"Node: post returned .* as its action; return one of \['default'\]"
    ):
        asyncflow.Flow(start=first).run({})
    assert issubclass(ActionError, TypeError)


def test_the_warning_of_an_unhandled_action_names_the_node():
    """And None by its own name, "default"."""
    first, second = asyncflow.Node(name="judge"), asyncflow.Node()
    first - "yes" >> second
    with pytest.warns(
        UserWarning, match=r"^Flow ends: 'default' not found in \['yes'\] \(returned by judge\)"
    ):
        asyncflow.Flow(start=first).run({})
    first, second = nodes_of(pocketflow)
    first - "yes" >> second
    with pytest.warns(UserWarning, match="^Flow ends: 'None' not found"):
        pocketflow.Flow(start=first).run({})


@pytest.mark.parametrize("falsy", ["__len__", "__bool__"])
def test_a_falsy_node_is_run(falsy):
    """A node with an empty __len__ or a false __bool__ is a node, not the end of the flow."""

    def ran(library):
        seen = []

        class Falsy(library.Node):
            def post(self, shared, prep_res, exec_res):
                seen.append("falsy")

        setattr(Falsy, falsy, lambda self: 0 if falsy == "__len__" else False)
        first = library.Node()
        first >> Falsy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PocketFlow: 'None' not found in ['default']
            library.Flow(start=first).run({})
            library.Flow(start=Falsy()).run({})
        return len(seen)

    assert ran(pocketflow) == 0
    assert ran(asyncflow) == 2


def test_a_flow_without_a_start_is_an_error():
    """PocketFlow runs nothing and returns None."""
    assert pocketflow.Flow().run({}) is None
    with pytest.raises(MissingStartError, match="start=node"):
        asyncflow.Flow().run({})


def test_only_nodes_can_be_joined():
    """A class, None or a function in the place of a node is found when it is joined."""
    assert pocketflow.Node() >> pocketflow.Node is pocketflow.Node
    for thing in (asyncflow.Node, None, print):
        with pytest.raises(TypeError, match="the target is a"):
            asyncflow.Node() >> thing
        with pytest.raises(TypeError, match="the target is a"):
            asyncflow.Node() - "x" >> thing
    with pytest.raises(TypeError, match="make an instance of it"):
        asyncflow.Flow(start=asyncflow.Node).run({})


def test_a_loop_can_be_bounded():
    """max_steps ends a loop that does not end."""
    node = asyncflow.Node()
    node >> node
    with pytest.raises(StepLimitError, match="took 10 steps"):
        asyncflow.Flow(start=node, max_steps=10).run({})


# Colours -----------------------------------------------------------------------


@pytest.mark.parametrize("part", ["prep", "exec", "post"])
def test_a_coroutine_from_a_plain_part_is_an_error(part):
    """`async def exec` on a Node: PocketFlow hands the coroutine on, and nobody awaits it."""

    async def work(self, *args):
        return 1

    node = type("Own", (asyncflow.Node,), {part: work})()
    with pytest.raises(CoroutineReturnedError, match="Own is synchronous but returned a coroutine"):
        node.run({})
    with pytest.raises(CoroutineReturnedError, match="Own"):
        asyncio.run(asyncflow.AsyncFlow(start=node).run_async({}))


def test_async_parts_of_a_plain_class_warn():
    """PocketFlow never calls them, and says nothing: `post` gets None. So it is here, with a warning."""

    def own(library):
        class Own(library.Node):
            async def exec_async(self, prep_res):
                return 1

            def post(self, shared, prep_res, exec_res):
                shared["result"] = exec_res

        return Own()

    for library, warned in ((pocketflow, 0), (asyncflow, 1)):
        shared = {}
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            own(library).run(shared)
        assert shared == {"result": None}
        assert ["its exec_async is never called" in str(one.message) for one in found] == [True] * warned


def test_plain_parts_of_async_classes_count():
    """PocketFlow never calls prep, exec and post of an async class."""

    def go(library):
        class Step(library.AsyncNode):
            def prep(self, shared):
                return 1

            def exec(self, prep_res):
                return prep_res + 1

            def post(self, shared, prep_res, exec_res):
                return f"{prep_res} {exec_res}"

        return asyncio.run(Step().run_async({}))

    assert go(pocketflow) is None
    assert go(asyncflow) == "1 2"


def test_an_async_flow_has_no_synchronous_run():
    """PocketFlow's runs it as a plain flow, past its prep_async and post_async."""

    def make(library):
        class Own(library.AsyncFlow):
            async def post_async(self, shared, prep_res, exec_res):
                return "own"

        return Own(start=library.Node())

    assert make(pocketflow).run({}) is None
    for flow in (make(asyncflow), asyncflow.Flow(start=make(asyncflow))):
        with pytest.raises(RuntimeError, match="run_async"):
            flow.run({})
    assert asyncflow.run_sync(make(asyncflow)).action == "own"


def test_a_plain_exec_can_leave_the_loop():
    """A plain node in an async flow holds the loop, as in PocketFlow, unless it is offloaded."""
    threads = []

    class Step(asyncflow.Node):
        def exec(self, prep_res):
            threads.append(threading.get_ident())

    for settings in ({}, {"offload": True}, {"timeout": 60}):
        asyncio.run(asyncflow.AsyncFlow(start=Step(**settings)).run_async({}))
    asyncio.run(asyncflow.AsyncFlow(start=Step(), offload=True).run_async({}))
    here = threading.get_ident()
    assert [thread == here for thread in threads] == [True, False, False, False]


def test_exceptions_say_where_they_come_from():
    """A note names node, item and attempts; the exception itself is the user's own."""

    def notes(library):
        class Batch(library.BatchNode):
            def prep(self, shared):
                return ["a", "b"]

            def exec(self, item):
                if item == "b":
                    raise ValueError(item)

        with pytest.raises(ValueError) as caught:
            Batch(max_retries=2).run({})
        return getattr(caught.value, "__notes__", [])

    assert notes(pocketflow) == []
    assert notes(asyncflow) == ["asyncflow: Batch, item 1 ('b'), attempt 2"]


def test_one_class_more_above_the_parallel_batch_flow():
    """AsyncParallelBatchFlow is an AsyncBatchFlow here."""
    assert not issubclass(pocketflow.AsyncParallelBatchFlow, pocketflow.AsyncBatchFlow)
    assert issubclass(asyncflow.AsyncParallelBatchFlow, asyncflow.AsyncBatchFlow)


def test_one_flow_can_run_twice_at_once():
    """Two runs of one flow at the same time do not disturb each other."""

    class Step(asyncflow.AsyncNode):
        async def exec_async(self, prep_res):
            await asyncio.sleep(0)
            self.mine = self.params["i"]
            await asyncio.sleep(0)
            return self.mine == self.params["i"]

        async def post_async(self, shared, prep_res, exec_res):
            shared.append(exec_res)

    class Sets(asyncflow.AsyncParallelBatchFlow):
        async def prep_async(self, shared):
            return [{"i": i} for i in range(10)]

    flow, shared = Sets(start=Step()), []

    async def main():
        await asyncio.gather(flow.run_async(shared), flow.run_async(shared))

    asyncio.run(main())
    assert shared == [True] * 20


# Names -------------------------------------------------------------------------

NAMES = [
    "concurrency",
    "retry",
    "timeout",
    "total_timeout",
    "on_error",
    "offload",
    "limits",
    "name",
    "version",
    "key",
    "cur_retry",
    "predecessors",
    "post_item",
    "post_item_async",
    "isolate",
    "max_steps",
    "to_mermaid",
]


def test_names_that_now_mean_something():
    """The page lists every public name that a node or flow has and PocketFlow's does not."""
    listed = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.M))
    assert listed == set(NAMES)
    new = {
        name
        for kind in ("Node", "AsyncParallelBatchNode", "AsyncParallelBatchFlow")
        for name in set(dir(getattr(asyncflow, kind)())) - set(dir(getattr(pocketflow, kind)()))
        if not name.startswith("_")
    }
    assert new <= listed
    assert listed - new <= {"key", "post_item", "post_item_async"}  # looked for on the user's class


def rows():
    """The rows of the page's tables that name tests, as (statement, test file, test)."""
    text = PAGE.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if re.match(r"\| .* \| `test_", line)]
    return [(line, *re.search(r"`(test_\w+\.py)::(test_\w+)` \|$", line).groups()) for line in lines]


def test_every_row_of_the_page_names_a_test():
    """No line of the migration page's tables without a test, and no test here without a line."""
    found = {(file, test) for _, file, test in rows()}
    for file, test in found:
        source = (HERE / file).read_text(encoding="utf-8")
        assert re.search(rf"^(async )?def {test}\(", source, re.M), (file, test)
    for file, apart in (
        ("test_pocketflow_same.py", set()),
        (
            "test_pocketflow_mended.py",
            {"test_every_row_of_the_page_names_a_test", "test_names_that_now_mean_something"},
        ),
    ):
        tests = set(re.findall(r"^def (test_\w+)\(", (HERE / file).read_text(encoding="utf-8"), re.M))
        assert tests - apart - {test for of, test in found if of == file} == set(), file
