"""Nodes: settings, attempts, errors, names, and how they are joined."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
import traceback
from dataclasses import dataclass

import pytest

from asyncflow import (
    AsyncBatchNode,
    AsyncFlow,
    AsyncNode,
    AsyncParallelBatchFlow,
    AsyncParallelBatchNode,
    BaseNode,
    BatchFlow,
    BatchNode,
    Failed,
    Flow,
    Node,
    Retry,
    run_sync,
)
from asyncflow.clock import FakeClock
from asyncflow.errors import CoroutineReturnedError, ItemTimeoutError


class Left(Node):
    pass


class Right(Node):
    pass


def joined() -> Left:
    left = Left()
    left >> Right()
    return left


# Joining ---------------------------------------------------------------


def test_a_node_without_a_hash_can_be_joined():
    """A dataclass has no hash, and is as good a node as any."""

    @dataclass
    class Point(Node):
        x: int = 0

        def __post_init__(self):
            super().__init__()

    first, second = Point(), Point()
    assert first >> second is second
    assert first == second
    [source] = second.predecessors()
    assert source is first
    assert first.predecessors() == []


def test_joined_nodes_can_be_pickled():
    """A graph goes to another process and back, with its successors."""
    again = pickle.loads(pickle.dumps(joined()))
    assert [type(node) for node in again.successors.values()] == [Right]


def test_joined_nodes_can_be_copied_deeply():
    """A deep copy has successors of its own, and leaves the original's alone."""
    left = joined()
    again = copy.deepcopy(left)
    assert again.successors["default"] is not left.successors["default"]
    again.successors["default"] >> Left()
    assert left.successors["default"].successors == {}
    assert left.successors["default"].predecessors() == [left]


def test_predecessors_does_not_keep_nodes_alive():
    """A node that leads somewhere is not held by where it leads."""
    left, right = Left(), Right()
    left >> right
    assert right.predecessors() == [left]
    del left
    assert right.predecessors() == []


# The three parts ---------------------------------------------------------------


class Bare(BaseNode):
    def prep(self, shared):
        return shared["n"]

    def exec(self, prep_res):
        if prep_res < 0:
            raise ValueError(prep_res)
        return prep_res + 1

    def post(self, shared, prep_res, exec_res):
        shared["n"] = exec_res
        return "done"


def test_a_base_node_runs_its_three_parts():
    """BaseNode without attempts is a node, alone and in flows of both colours."""
    shared = {"n": 0}
    assert Bare().run(shared) == "done"
    assert Flow(start=Bare()).run(shared) == "done"
    assert asyncio.run(AsyncFlow(start=Bare()).run_async(shared)) == "done"
    assert shared == {"n": 3}
    with pytest.raises(ValueError):
        Bare().run({"n": -1})


class Attempts(Node):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.cur_retry = 7

    def exec(self, prep_res):
        if self.cur_retry < 2:
            raise ValueError(self.cur_retry)
        return self.cur_retry

    def post(self, shared, prep_res, exec_res):
        shared["attempt"] = exec_res


def test_cur_retry_may_be_assigned():
    """What is assigned counts outside an attempt only: inside, the attempt answers."""
    node, shared = Attempts(max_retries=3), {}
    assert node.exec(None) == 7
    node.cur_retry = 5
    assert node.exec(None) == 5
    node.run(shared)
    assert shared == {"attempt": 2}
    with pytest.raises(ValueError, match="0"):
        Attempts().run({})
    assert Node().cur_retry == 0


# The fallback ------------------------------------------------------------------


class Fails:
    def prep(self, shared):
        return [1]

    def exec(self, prep_res):
        raise ValueError("broken")

    def post(self, shared, prep_res, exec_res):
        shared["result"] = exec_res


class FailsAsync:
    async def prep_async(self, shared):
        return [1]

    async def exec_async(self, prep_res):
        raise ValueError("broken")

    async def post_async(self, shared, prep_res, exec_res):
        shared["result"] = exec_res


class Tells:
    def exec_fallback(self, prep_res, exc):
        return traceback.format_exc()


class TellsAsync:
    async def exec_fallback_async(self, prep_res, exc):
        return traceback.format_exc()


class Replaces:
    def exec_fallback(self, prep_res, exc):
        raise KeyError("another")


class ReplacesAsync:
    async def exec_fallback_async(self, prep_res, exc):
        raise KeyError("another")


SETTINGS = [{}, {"max_retries": 2}, {"timeout": 30}, {"offload": True}, {"concurrency": 2}]
FALLBACKS = [
    (step, kind, tells, replaces)
    for step, kinds in (
        (Fails, (Node, BatchNode, AsyncNode)),
        (FailsAsync, (AsyncNode, AsyncParallelBatchNode)),
    )
    for kind in kinds
    for tells, replaces in ((Tells, Replaces), (TellsAsync, ReplacesAsync))
    if tells is Tells or issubclass(kind, AsyncNode)
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("step, kind, tells, replaces", FALLBACKS)
def test_a_fallback_sees_the_exception_in_hand(step, kind, tells, replaces, settings):
    """In exec_fallback traceback.format_exc() is the item's error; what it raises has it as its context."""
    shared = {}
    run_sync(type("Telling", (tells, step, kind), {})(**settings), shared)
    result = shared["result"]
    assert "ValueError: broken" in (result[0] if isinstance(result, list) else result)
    with pytest.raises(KeyError) as caught:
        run_sync(type("Replacing", (replaces, step, kind), {})(**settings), {})
    assert isinstance(caught.value.__context__, ValueError)
    assert any("Replacing" in note for note in caught.value.__notes__)


# Settings ----------------------------------------------------------------------

BAD = [
    ({"concurrency": 0}, ValueError, "at least 1"),
    ({"concurrency": "many"}, TypeError, "whole number"),
    ({"concurrency": True}, TypeError, "whole number"),
    ({"concurrency": 2.0}, TypeError, "whole number"),
    ({"max_retries": 0}, ValueError, "max_retries=1 for a single attempt"),
    ({"max_retries": -1}, ValueError, "max_retries=1"),
    ({"max_retries": "3"}, TypeError, "whole number"),
    ({"wait": -1, "max_retries": 2}, ValueError, "seconds"),
    ({"wait": "1", "max_retries": 2}, ValueError, "seconds"),
    ({"retry": 3}, TypeError, "Retry\\(attempts=3"),
    ({"retry": Retry(), "max_retries": 2}, ValueError, "not both"),
    ({"timeout": 0}, ValueError, "above 0"),
    ({"timeout": float("nan")}, ValueError, "above 0"),
    ({"total_timeout": "5"}, TypeError, "seconds"),
    ({"on_error": "ignore"}, ValueError, '"continue"'),
    ({"on_error": 0}, ValueError, '"continue"'),
    ({"on_error": print}, TypeError, '"continue"'),
    ({"limits": object()}, TypeError, "give a Limits"),
]
NODES = [Node, BatchNode, AsyncNode, AsyncBatchNode, AsyncParallelBatchNode]


@pytest.mark.parametrize("settings, error, text", BAD, ids=lambda value: str(value)[:30])
@pytest.mark.parametrize("kind", NODES)
def test_a_wrong_setting_is_refused_when_the_node_is_made(kind, settings, error, text):
    """Each wrong setting is an error that names the node, the setting, and what it should be."""
    own = type("Summarise", (kind,), {})
    with pytest.raises(error, match=text) as caught:
        own(**settings)
    said = str(caught.value) + "".join(caught.value.__notes__)
    assert "Summarise" in said
    assert all(name in said for name in list(settings)[:1])


@pytest.mark.parametrize(
    "kind, settings, error, text",
    # One item does not ask how many may be at work, and True is 1.
    [
        (kind, *bad)
        for kind in NODES
        for bad in BAD
        if issubclass(kind, BatchNode) and bad[0] != {"concurrency": True} or "concurrency" not in bad[0]
    ],
    ids=lambda value: getattr(value, "__name__", str(value)[:30]),
)
def test_a_wrong_setting_made_later_is_refused_when_the_node_runs(kind, settings, error, text):
    """As above, for attributes that are set after the node was made."""
    node = type("Summarise", (kind,), {})()
    for name, value in settings.items():
        setattr(node, name, value)
    with pytest.raises(error, match=text) as caught:
        run_sync(AsyncFlow(start=node))
    assert "Summarise" in str(caught.value) + "".join(caught.value.__notes__)


@pytest.mark.parametrize(
    "settings, error, text",
    # max_retries and wait are arguments with defaults, as in PocketFlow: class attributes do not count.
    [bad for bad in BAD if "max_retries" not in bad[0]],
    ids=lambda value: str(value)[:30],
)
@pytest.mark.parametrize("kind", NODES)
def test_a_wrong_class_attribute_is_refused_when_the_node_is_made(kind, settings, error, text):
    """As above, for settings written into the class."""
    with pytest.raises(error, match=text):
        type("Summarise", (kind,), settings)()


# Names -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["_run_step", "_exec", "_error_policy", "_cur_retry"])
@pytest.mark.parametrize("kind", [Node, AsyncNode])
def test_a_private_name_of_asyncflow_is_refused(kind, name):
    """A helper that would replace a part of the engine is an error where its class is written."""
    with pytest.raises(TypeError, match=f"Own defines {name}, which asyncflow uses itself"):
        type("Own", (kind,), {name: lambda self: None})


@pytest.mark.parametrize("name", ["_run", "_run_async", "_orch", "_orch_async"])
def test_overriding_pocketflows_internals_warns(name):
    """They are not called here, so overriding them would change nothing, silently."""
    with pytest.warns(UserWarning, match=f"Own defines {name}, which PocketFlow calls"):
        type("Own", (Flow,), {name: lambda self, shared: None})
    type("Own", (Flow,), {"_other": 1, "__mangled": 2})


@pytest.mark.parametrize("kind", [Node, BatchNode, BaseNode])
@pytest.mark.parametrize("part", ["prep", "exec", "post"])
def test_async_parts_of_a_synchronous_class_warn(kind, part):
    """Nothing calls them, which would be a silent None; where the plain part is there, it may call them."""

    async def part_async(self, *arguments): ...

    with pytest.warns(UserWarning, match=f"Own is synchronous, so its {part}_async is never called"):
        type("Own", (kind,), {f"{part}_async": part_async})()
    type("Both", (kind,), {f"{part}_async": part_async, part: lambda self, *arguments: None})()


@pytest.mark.parametrize("kind", [Node, BatchNode, Flow])
def test_an_init_that_does_not_call_super_is_named(kind):
    """The error says what is missing; any other attribute is missing as ever."""
    own = type("Own", (kind,), {"__init__": lambda self: None})()
    with pytest.raises(AttributeError, match=r"'Own' object .*: its __init__ has to call super\(\)"):
        own.run({})
    with pytest.raises(AttributeError, match="has no attribute 'other'$"):
        own.other


@pytest.mark.parametrize("kind", [Node, BatchNode, BaseNode])
def test_an_init_that_does_not_call_super_is_named_in_a_flow(kind):
    """So it is where nothing was joined and the node runs as part of a flow."""
    own = type("Own", (kind,), {"__init__": lambda self: None})()
    with pytest.raises(AttributeError, match=r"'Own' object .*: its __init__ has to call super\(\)"):
        Flow(start=own).run({})


@pytest.mark.asyncio
async def test_a_yield_in_an_async_part_is_named():
    """An async generator function is no coroutine function; a part may return an async generator."""

    class Yields(AsyncBatchNode):
        async def prep_async(self, shared):
            yield 1

    class Returns(AsyncBatchNode):
        async def items(self):
            yield 1

        async def prep_async(self, shared):
            return self.items()

        async def exec_async(self, item):
            return item

        async def post_async(self, shared, prep_res, exec_res):
            shared["items"] = exec_res

    with pytest.raises(TypeError, match="Yields: prep_async has a `yield`"):
        await Yields().run_async({})
    shared = {}
    await Returns().run_async(shared)
    assert shared == {"items": [1]}


# Attempts ----------------------------------------------------------------------


@pytest.mark.parametrize("error, attempts", [(ValueError, 3), (ConnectionError, 3), (KeyError, 3)])
def test_max_retries_repeats_any_exception(error, attempts):
    """PocketFlow's rule."""
    node, calls = Node(max_retries=3), []

    def exec(prep_res):
        calls.append(1)
        raise error

    node.exec = exec
    with pytest.raises(error) as caught:
        node.run({})
    assert len(calls) == attempts
    assert caught.value.__notes__ == [f"asyncflow: Node, attempt {attempts}"]


@pytest.mark.parametrize("error, attempts", [(ValueError, 1), (ConnectionError, 3), (TimeoutError, 3)])
def test_retry_repeats_what_passes(error, attempts):
    """The finer rule: errors of the program are not repeated."""
    node, calls = Node(retry=Retry(attempts=3, wait=5)), []

    def exec(prep_res):
        calls.append(1)
        raise error

    node.exec = exec
    with FakeClock(), pytest.raises(error):
        node.run({})
    assert len(calls) == attempts


@pytest.mark.parametrize("flow", [Flow, AsyncFlow])
@pytest.mark.parametrize("kind", [Node, BatchNode])
def test_a_timeout_gives_a_plain_exec_up(flow, kind):
    """It runs on a thread, which cannot be stopped; the item fails with ItemTimeoutError."""
    release = threading.Event()

    class Hangs(kind):
        def prep(self, shared):
            return [1]

        def exec(self, item):
            release.wait(10)

    try:
        with pytest.raises(ItemTimeoutError, match="Hangs, item 0: attempt 1 took longer than 0.01 seconds"):
            run_sync(flow(start=Hangs(timeout=0.01)))
    finally:
        release.set()


def test_total_timeout_bounds_all_attempts():
    """No attempt begins that could not end in time, and the error says why."""

    class Fails(AsyncNode):
        async def exec_async(self, prep_res):
            raise ConnectionError

    async def main():
        with FakeClock() as clock:
            with pytest.raises(ConnectionError) as caught:
                await Fails(max_retries=100, wait=10, total_timeout=35).run_async({})
            return clock.now(), caught.value.__notes__

    now, notes = asyncio.run(main())
    assert now == 30
    assert any("total_timeout leaves no time" in note for note in notes)


@pytest.mark.parametrize("kind, step", [(Node, Fails), (AsyncNode, Fails), (AsyncNode, FailsAsync)])
def test_continue_hands_a_failure_to_post(kind, step):
    """On a single node `on_error="continue"` puts a Failed in the place of exec's result."""
    shared = {}
    run_sync(type("Own", (step, kind), {})(max_retries=2, on_error="continue"), shared)
    failed = shared["result"]
    assert isinstance(failed, Failed) and failed.attempts == 2
    assert isinstance(failed.error, ValueError) and failed.error.__traceback__ is None
    assert "in exec" in failed.traceback


def test_a_name_replaces_the_class_in_errors():
    """As an argument or a class attribute; what is no text, or empty, is not a name."""

    class Named(Node):
        name = "class name"

    assert [repr(node) for node in (Node(name="own"), Named(), Named(name="own"))] == [
        "<own>",
        "<class name>",
        "<own>",
    ]
    for odd in ("", 3, None):
        node = Node()
        node.name = odd
        assert repr(node) == "<Node>"


@pytest.mark.parametrize("base", [Node, Flow, BaseNode])
@pytest.mark.parametrize("part", ["prep", "post"])
def test_a_coroutine_from_prep_or_post_names_that_part(base, part):
    """What to write in its place is prep_async or post_async, not exec_async."""

    async def work(self, *args):
        raise AssertionError

    node = type("Own", (base,), {part: work})()
    if base is Flow:
        node.start(Node())
    with pytest.raises(CoroutineReturnedError, match=rf"from {part} .*`async def {part}_async`") as caught:
        node.run({})
    assert "exec_async" not in str(caught.value)


PARTED = [
    (host, base, part)
    for bases, hosts, parts in (
        ((BaseNode, Node, BatchNode, Flow, BatchFlow), (Flow, AsyncFlow), ("prep", "post")),
        (
            (AsyncNode, AsyncBatchNode, AsyncFlow, AsyncParallelBatchFlow),
            (AsyncFlow,),
            ("prep", "post", "prep_async", "post_async"),
        ),
    )
    for base in bases
    for host in hosts
    for part in parts
]


@pytest.mark.parametrize(("host", "base", "part"), PARTED)
def test_an_error_in_prep_or_post_says_where_it_was_raised(host, base, part):
    """The exception is the user's own, with one note: the node, and the part that raised it."""
    error = KeyError("text")

    def fails(self, *args):
        raise error

    async def fails_async(self, *args):
        raise error

    node = type("Own", (base,), {part: fails_async if part.endswith("_async") else fails, "name": "it"})()
    if isinstance(node, Flow):
        node.start(Node())
    with pytest.raises(KeyError) as caught:
        run_sync(host(start=host(start=node)), {})
    assert caught.value is error
    assert error.__notes__ == [f"asyncflow: it: raised by {part.removesuffix('_async')}"]


def test_an_error_that_says_where_it_comes_from_gets_no_second_note():
    """A post that raises what a run inside it raised: the note there is the one that helps."""

    class Inner(Node):
        def exec(self, prep_res):
            raise ValueError("inner")

    class Outer(Node):
        def post(self, shared, prep_res, exec_res):
            Inner().run(shared)

    with pytest.raises(ValueError) as caught:
        Outer().run({})
    assert caught.value.__notes__ == ["asyncflow: Inner, attempt 1"]
    own = ValueError("text")
    own.add_note("the user's")

    class Fails(Node):
        def prep(self, shared):
            raise own

    with pytest.raises(ValueError):
        Fails().run({})
    assert own.__notes__ == ["the user's", "asyncflow: Fails: raised by prep"]


@pytest.mark.parametrize("settings", [{}, {"max_retries": 2}, {"offload": True}])
@pytest.mark.parametrize("kind", [Node, BatchNode])
def test_stop_iteration_comes_out_of_run_as_it_is(kind, settings):
    """With its value, its notes, and no trace of the coroutines that it went through."""
    error = StopIteration("value")

    class Own(kind):
        def prep(self, shared):
            return [1]

        def exec(self, item):
            raise error

    with pytest.raises(StopIteration) as caught:
        Flow(start=Flow(start=Own(**settings))).run({})
    assert caught.value is error
    assert error.__cause__ is None and error.__context__ is None
    [note] = error.__notes__
    assert note.startswith("asyncflow: Own")
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert frames[-1] == "exec"


def test_a_runtime_error_of_the_users_own_stays_one():
    """From StopIteration, or from a coroutine of the user's: in PocketFlow it is a RuntimeError too."""

    async def stops():
        raise StopIteration

    def on_purpose(self, prep_res):
        raise RuntimeError("coroutine raised StopIteration") from StopIteration()

    def by_coroutine(self, prep_res):
        asyncio.run(stops())

    def by_generator(self, prep_res):
        return sum(next(iter(())) for _ in range(1))

    for work in (on_purpose, by_coroutine, by_generator):
        with pytest.raises(RuntimeError, match="raised StopIteration"):
            Flow(start=type("Own", (Node,), {"exec": work})()).run({})
