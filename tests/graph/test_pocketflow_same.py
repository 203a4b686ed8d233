"""What stays as in PocketFlow 0.0.3: each program runs against both libraries, its text unchanged.

A program is a function of the library. What it returns, and the warnings it causes, have to be equal; what it
raises fails the test. Programs that look for an error catch it themselves.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import warnings
from unittest.mock import AsyncMock, MagicMock, Mock

import pocketflow
import pytest

import asyncflow


def ran(program, library):
    """The program's result, and the texts of its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = program(library)
    assert result is not None, "a program says what it came to"
    # asyncflow's warning of an unhandled action also names the node, and None's own name, "default".
    texts = [str(warning.message).split(" (returned by")[0] for warning in caught]
    return result, [text.replace("'None' not found", "'default' not found") for text in texts]


def same(program):
    """A test that the program comes to the same with both libraries."""

    @functools.wraps(program)
    def test():
        assert ran(program, asyncflow) == ran(program, pocketflow)

    del test.__wrapped__  # pytest would ask for a fixture named after the parameter
    return test


# Nodes -------------------------------------------------------------------------


@same
def test_the_three_parts(pf):
    """prep reads, exec works on what it returned, post writes and returns the action; each is called once."""
    calls = []

    class Step(pf.Node):
        def prep(self, shared):
            calls.append("prep")
            return shared["x"]

        def exec(self, prep_res):
            calls.append(("exec", prep_res))
            return prep_res + 1

        def post(self, shared, prep_res, exec_res):
            calls.append(("post", prep_res, exec_res))
            shared["x"] = exec_res
            return "next"

    shared = {"x": 1}
    return Step().run(shared), shared, calls


@same
def test_default_parts(pf):
    """Without parts of its own a node or flow of any class does nothing and returns None."""
    plain = [kind().run({}) for kind in (pf.BaseNode, pf.Node, pf.BatchNode)]

    class NoSets(pf.AsyncParallelBatchFlow):
        async def prep_async(self, shared):
            return []

    class NoItems(pf.AsyncParallelBatchNode):
        async def prep_async(self, shared):
            return []

    later = [asyncio.run(kind().run_async({})) for kind in (pf.AsyncNode, NoItems)]
    flows = [pf.Flow(start=pf.Node()).run({}), pf.BatchFlow(start=pf.Node()).run({})]
    later += [
        asyncio.run(kind(start=pf.Node()).run_async({})) for kind in (pf.AsyncFlow, pf.AsyncBatchFlow, NoSets)
    ]
    return plain, flows, later


@same
def test_constructor_arguments(pf):
    """max_retries and wait come first and by position; attributes have the same names and defaults."""
    found = []
    for kind in (pf.Node, pf.BatchNode, pf.AsyncNode, pf.AsyncBatchNode, pf.AsyncParallelBatchNode):
        for node in (kind(), kind(3, 0.5), kind(max_retries=2, wait=1)):
            found.append((node.max_retries, node.wait, node.params, node.successors))
    start = pf.Node()
    for kind in (pf.Flow, pf.BatchFlow, pf.AsyncFlow, pf.AsyncBatchFlow, pf.AsyncParallelBatchFlow):
        found.append(
            (kind().start_node, kind(start).start_node is start, kind(start=start).start_node is start)
        )
    return found


@same
def test_class_tree(pf):
    """isinstance between the ten classes and BaseNode answers the same."""
    names = "BaseNode Node BatchNode Flow BatchFlow AsyncNode AsyncBatchNode AsyncParallelBatchNode AsyncFlow"
    names += " AsyncBatchFlow"
    kinds = [getattr(pf, name) for name in names.split()]
    last = pf.AsyncParallelBatchFlow
    return [[issubclass(one, other) for other in kinds] for one in kinds], last.__mro__[-2].__name__


@same
def test_max_retries_as_a_class_attribute_does_not_count(pf):
    """max_retries is an argument with a default of 1, which hides a class attribute."""

    class Step(pf.Node):
        max_retries = 5

    return Step().max_retries


@same
def test_retries(pf):
    """exec runs up to max_retries times for any Exception; cur_retry counts from 0."""
    seen = []

    class Step(pf.Node):
        def exec(self, prep_res):
            seen.append(self.cur_retry)
            if self.cur_retry < 2:
                raise RuntimeError("again")
            return "ok"

        def post(self, shared, prep_res, exec_res):
            return exec_res

    return Step(max_retries=4).run({}), Step(max_retries=3, wait=0.001).run({}), seen


@same
def test_the_last_error_is_raised(pf):
    """Without a fallback the last attempt's own exception comes out, and post is not called."""
    count = []

    class Step(pf.Node):
        def exec(self, prep_res):
            count.append(1)
            raise KeyError(len(count))

        def post(self, shared, prep_res, exec_res):
            count.append("post")

    with pytest.raises(KeyError) as caught:
        Step(max_retries=3).run({})
    return caught.value.args, count


@same
def test_fallback(pf):
    """exec_fallback stands in after the last attempt; cur_retry is the last one there."""

    class Step(pf.Node):
        def prep(self, shared):
            return 7

        def exec(self, prep_res):
            raise ValueError("no")

        def exec_fallback(self, prep_res, exc):
            return prep_res, repr(exc), self.cur_retry

        def post(self, shared, prep_res, exec_res):
            shared["result"] = exec_res

    shared = {}
    Step(max_retries=3).run(shared)
    return shared


@same
def test_async_fallback_and_retries(pf):
    """The async forms: attempts, fallback, and waits between."""
    seen = []

    class Step(pf.AsyncNode):
        async def exec_async(self, prep_res):
            seen.append("exec")
            raise ValueError("no")

        async def exec_fallback_async(self, prep_res, exc):
            return repr(exc)

        async def post_async(self, shared, prep_res, exec_res):
            return exec_res

    return asyncio.run(Step(max_retries=3, wait=0.001).run_async({})), seen


@same
def test_base_exceptions_are_not_retried(pf):
    """KeyboardInterrupt and SystemExit pass through at once, past the fallback."""
    seen = []

    class Step(pf.Node):
        def exec(self, prep_res):
            seen.append("exec")
            raise SystemExit(3)

        def exec_fallback(self, prep_res, exc):
            seen.append("fallback")

    with pytest.raises(SystemExit):
        Step(max_retries=3).run({})
    return seen


@same
def test_stop_iteration_from_a_plain_part(pf):
    """Out of run it comes as it is; on the loop, where no coroutine can raise it, as a RuntimeError."""
    came_out = []

    def stops(self, *args):
        return next(iter(()))

    for part in ("prep", "exec", "post"):
        Step = type("Step", (pf.Node,), {part: stops})
        for node in (Step(), pf.Flow(start=pf.Flow(start=Step()))):
            with pytest.raises(StopIteration) as caught:
                node.run({})
            came_out.append(str(caught.value))
        with pytest.raises(RuntimeError) as caught:
            asyncio.run(pf.AsyncFlow(start=Step()).run_async({}))
        came_out.append((str(caught.value), type(caught.value.__cause__)))
    return came_out


@same
def test_prep_and_post_are_not_retried(pf):
    """Only exec has attempts."""
    seen = []

    class Step(pf.Node):
        def prep(self, shared):
            seen.append("prep")
            raise OSError("prep")

    class Posts(pf.Node):
        def post(self, shared, prep_res, exec_res):
            seen.append("post")
            raise OSError("post")

    for kind in (Step, Posts):
        with pytest.raises(OSError):
            kind(max_retries=3).run({})
    return seen


@same
def test_shared_may_be_anything(pf):
    """shared is handed on as it is: None, a list, an object."""

    class Step(pf.Node):
        def post(self, shared, prep_res, exec_res):
            return repr(type(shared))

    return [pf.Flow(start=Step()).run(shared) for shared in (None, [], {}, object())]


# Joining -----------------------------------------------------------------------


@same
def test_joining(pf):
    """>> and - "action" >> return the target, so chains read from left to right; next() is the same."""
    a, b, c, d = (pf.Node() for _ in range(4))
    found = [a >> b is b, b - "x" >> c is c, c.next(d) is d, c.next(d, "y") is d]
    return found, list(a.successors), list(b.successors), list(c.successors)


@same
def test_overwriting_warns(pf):
    """A second successor for an action replaces the first, with a warning."""
    a, b, c = (pf.Node() for _ in range(3))
    a >> b
    a >> c
    a - "x" >> b
    a - "x" >> b
    return a.successors["default"] is c


@same
def test_an_action_before_the_arrow_is_a_string(pf):
    """node - 3 is a TypeError."""
    with pytest.raises(TypeError):
        pf.Node() - 3
    return True


@same
def test_start_returns_the_node(pf):
    """Flow().start(a) >> b joins a to b."""
    seen = []

    class Step(pf.Node):
        def post(self, shared, prep_res, exec_res):
            seen.append(self.label)

    a, b = Step(), Step()
    a.label, b.label = "a", "b"
    flow = pf.Flow()
    flow.start(a) >> b
    flow.run({})
    return seen, flow.start_node is a


@same
def test_a_node_run_alone_does_not_go_on(pf):
    """run and run_async of a node, or of a flow, with successors warn and stay where they are."""
    a, b = pf.Node(), pf.AsyncNode()
    a >> pf.Node()
    b >> pf.Node()
    inner, outer = pf.Flow(start=pf.Node()), pf.AsyncFlow(start=pf.Node())
    inner >> pf.Node()
    outer >> pf.Node()
    asyncio.run(b.run_async({}))
    asyncio.run(outer.run_async({}))
    return [a.run({}), inner.run({})]


# Flows -------------------------------------------------------------------------


def counter(pf):
    class Count(pf.Node):
        def post(self, shared, prep_res, exec_res):
            shared["n"] = shared.get("n", 0) + 1
            return "again" if shared["n"] < 5 else "done"

    return Count()


@same
def test_actions_and_loops(pf):
    """The action picks the successor; a node may lead back to itself."""

    class End(pf.Node):
        def post(self, shared, prep_res, exec_res):
            shared["end"] = shared["n"]
            return "finished"

    count = counter(pf)
    count - "again" >> count
    count - "done" >> End()
    shared = {}
    return pf.Flow(start=count).run(shared), shared


@same
def test_an_unhandled_action_ends_the_flow(pf):
    """With a warning where there are successors, and none where there are none."""
    count = counter(pf)
    count - "again" >> count
    return pf.Flow(start=count).run({}), pf.Flow(start=counter(pf)).run({})


@same
def test_none_is_an_unhandled_default(pf):
    """None means "default", for which a warning is due where only others are handled."""
    a = pf.Node()
    a - "x" >> pf.Node()
    return [pf.Flow(start=a).run({})]


@same
def test_falsy_actions_are_the_default(pf):
    """None, "", 0, False and [] lead along the default."""
    seen = []

    class Step(pf.Node):
        def post(self, shared, prep_res, exec_res):
            return self.params["action"]

    class End(pf.Node):
        def post(self, shared, prep_res, exec_res):
            seen.append(self.params["action"])

    for action in (None, "", 0, False, [], ()):
        step = Step()
        step >> End()
        flow = pf.Flow(start=step)
        flow.set_params({"action": action})
        flow.run({})
    return seen


@same
def test_an_action_of_any_type_may_end_a_flow(pf):
    """The last node may return anything: without successors nothing is looked up."""

    class Step(pf.Node):
        def post(self, shared, prep_res, exec_res):
            return 42

    return pf.Flow(start=Step()).run({})


@same
def test_flows_are_nodes(pf):
    """An inner flow's action is its last node's, or what its post says."""
    seen = []

    class Says(pf.Node):
        def __init__(self, word):
            super().__init__()
            self.word = word

        def post(self, shared, prep_res, exec_res):
            seen.append(self.word)
            return self.word

    class Own(pf.Flow):
        def prep(self, shared):
            return "prepared"

        def post(self, shared, prep_res, exec_res):
            seen.append((prep_res, exec_res))
            return "own"

    inner, own = pf.Flow(start=Says("left")), Own(start=Says("inside"))
    inner - "left" >> own
    own - "own" >> Says("end")
    return pf.Flow(start=inner).run({}), seen


@same
def test_flows_post_returns_the_last_action(pf):
    """By default post of a flow passes the last node's action on; that of a batch flow, None."""

    class Says(pf.Node):
        def post(self, shared, prep_res, exec_res):
            return "word"

    class Sets(pf.BatchFlow):
        def prep(self, shared):
            return [{}, {}]

    class AsyncSets(pf.AsyncBatchFlow):
        async def prep_async(self, shared):
            return [{}, {}]

    plain = [pf.Flow(start=Says()).run({}), Sets(start=Says()).run({})]
    later = [asyncio.run(flow.run_async({})) for flow in (pf.AsyncFlow(Says()), AsyncSets(Says()))]
    return plain, later, pf.Flow().post({}, None, "x")


@same
def test_set_params(pf):
    """A flow hands its params to every node; a node's own are replaced."""
    seen = []

    class Step(pf.Node):
        def prep(self, shared):
            seen.append(dict(self.params))

    a, b = Step(), Step()
    a.set_params({"own": 1})
    a >> b
    flow = pf.Flow(start=a)
    flow.set_params({"k": 1})
    flow.run({})
    a.run({}) if not a.successors else None
    lone = Step()
    lone.set_params({"own": 2})
    lone.run({})
    return seen, a.params


@same
def test_params_are_one_dict_for_a_run(pf):
    """What a node puts into its params the nodes after it see, in that run, and the flow does not."""
    seen = []

    class Puts(pf.Node):
        def prep(self, shared):
            self.params["put"] = True

    class Sees(pf.Node):
        def prep(self, shared):
            seen.append(dict(self.params))

    puts = Puts()
    puts >> Sees()
    flow = pf.Flow(start=puts)
    flow.set_params({"k": 1})
    flow.run({})
    return seen, flow.params


@same
def test_each_step_runs_on_a_shallow_copy(pf):
    """Attributes set in a step are gone after it; what they refer to is shared."""

    class Step(pf.Node):
        def __init__(self):
            super().__init__()
            self.number, self.found = 0, []

        def post(self, shared, prep_res, exec_res):
            self.number += 1
            self.found.append(self.number)
            return "again" if len(self.found) < 3 else None

    step = Step()
    step - "again" >> step
    step >> pf.Node()
    pf.Flow(start=step).run({})
    alone = Step()
    alone.run({})
    return step.number, step.found, alone.number


@same
def test_a_nodes_own_copy_is_used(pf):
    """A node that defines __copy__, or how it is pickled, is copied by that."""
    copies = []

    class Own(pf.Node):
        def __copy__(self):
            new = type(self)()
            new.__dict__.update(self.__dict__)
            new.copied = True
            copies.append("copy")
            return new

        def post(self, shared, prep_res, exec_res):
            shared["copied"] = self.copied

    class State(pf.Node):
        def __getstate__(self):
            return {**self.__dict__, "stated": True}

        def post(self, shared, prep_res, exec_res):
            shared["stated"] = self.stated

    shared = {}
    own = Own()
    own >> State()
    pf.Flow(start=own).run(shared)
    return shared, copies


@same
def test_slots_survive_the_copy(pf):
    """A node with __slots__ keeps them in a flow."""

    class Step(pf.Node):
        __slots__ = ("value",)

        def post(self, shared, prep_res, exec_res):
            shared["value"] = self.value

    step, shared = Step(), {}
    step.value = 3
    pf.Flow(start=step).run(shared)
    return shared, copy.copy(step).value


@same
def test_get_next_node_can_be_overridden(pf):
    """A flow that chooses by itself."""

    class Chooses(pf.Flow):
        def get_next_node(self, curr, action):
            return super().get_next_node(curr, "b" if action == "a" else action)

    class Says(pf.Node):
        def post(self, shared, prep_res, exec_res):
            shared.append(self.word)
            return "a"

    first, second = Says(), Says()
    first.word, second.word = "first", "second"
    first - "b" >> second
    shared = []
    return Chooses(start=first).run(shared), shared


# Batch nodes -------------------------------------------------------------------


@same
def test_batch_nodes(pf):
    """One exec for each item, in order; post gets what prep returned and the list of results."""
    calls = []

    class Batch(pf.BatchNode):
        def prep(self, shared):
            return shared["items"]

        def exec(self, item):
            calls.append(item)
            return item * 2

        def post(self, shared, prep_res, exec_res):
            shared["results"] = (prep_res, exec_res)
            return "done"

    found = []
    for items in ([3, 1, 2], (5,), [], None, "abc", range(2)):
        shared = {"items": items}
        found.append((Batch().run(shared), shared["results"]))
    return found, calls


@same
def test_batch_retries_are_each_items_own(pf):
    """An item has its attempts one after the other, before the next item begins."""
    calls = []

    class Batch(pf.BatchNode):
        def prep(self, shared):
            return [1, 2, 3]

        def exec(self, item):
            calls.append((item, self.cur_retry))
            if item == 2 or self.cur_retry == 0:
                raise ValueError(item)
            return item

        def exec_fallback(self, item, exc):
            return f"no {item}: {exc!r}"

        def post(self, shared, prep_res, exec_res):
            return exec_res

    return Batch(max_retries=2).run({}), Batch(max_retries=2, wait=0.001).run({}), calls


@same
def test_a_failing_item_ends_a_batch(pf):
    """Its exception is raised, and the items after it are not run, in a sequential batch."""
    calls = []

    class Batch(pf.BatchNode):
        def prep(self, shared):
            return range(5)

        def exec(self, item):
            calls.append(item)
            if item == 2:
                raise ZeroDivisionError
            return item

    class AsyncBatch(pf.AsyncBatchNode):
        async def prep_async(self, shared):
            return range(5)

        async def exec_async(self, item):
            calls.append(item)
            if item == 2:
                raise ZeroDivisionError
            return item

    with pytest.raises(ZeroDivisionError):
        Batch().run({})
    with pytest.raises(ZeroDivisionError):
        asyncio.run(AsyncBatch().run_async({}))
    return calls


def async_batch(kind, calls):
    class Batch(kind):
        async def prep_async(self, shared):
            return shared["items"]

        async def exec_async(self, item):
            calls.append(("begins", item))
            await asyncio.sleep(0)
            calls.append(("ends", item))
            return -item

        async def post_async(self, shared, prep_res, exec_res):
            return list(prep_res), exec_res

    return Batch()


@same
def test_async_batch_nodes_are_sequential(pf):
    """AsyncBatchNode: one item after the other."""
    calls = []
    return asyncio.run(async_batch(pf.AsyncBatchNode, calls).run_async({"items": [1, 2, 3]})), calls


@same
def test_parallel_batch_nodes_overlap(pf):
    """AsyncParallelBatchNode: all begin before one ends, results in the order of the items."""
    calls = []
    return asyncio.run(async_batch(pf.AsyncParallelBatchNode, calls).run_async({"items": [3, 1, 2]})), calls


# Batch flows -------------------------------------------------------------------


def sets(kind, *given):
    """A batch flow class whose prep, in both forms, returns the sets."""

    class Sets(kind):
        def prep(self, shared):
            return list(given)

    if hasattr(kind, "prep_async"):

        class AsyncSets(kind):
            async def prep_async(self, shared):
                return list(given)

        return AsyncSets
    return Sets


def recorder(pf, seen):
    class Records(pf.Node):
        def post(self, shared, prep_res, exec_res):
            seen.append(dict(self.params))

    return Records()


@same
def test_nested_params_merge(pf):
    """Three levels: each run's set over the params around it, the inner one wins."""
    seen = []
    inner = sets(pf.BatchFlow, {"c": 1}, {"c": 2, "a": "inner"})(start=recorder(pf, seen))
    middle = sets(pf.BatchFlow, {"b": 1}, {"b": 2})(start=inner)
    outer = sets(pf.BatchFlow, {"a": 1}, {"a": 2}, {})(start=middle)
    outer.set_params({"top": 0})
    return [outer.run({})], seen


@same
def test_nested_params_merge_async(pf):
    """As above on the loop, a plain batch flow and a plain flow inside."""
    seen = []
    inner = sets(pf.BatchFlow, {"c": 1}, {"c": 2})(start=pf.Flow(start=recorder(pf, seen)))
    middle = sets(pf.AsyncBatchFlow, {"b": 1}, {"b": 2})(start=inner)
    outer = sets(pf.AsyncBatchFlow, {"a": 1}, {"a": 2})(start=middle)
    return [asyncio.run(outer.run_async({}))], seen


@same
def test_parallel_runs_merge_params(pf):
    """Parallel runs see their own sets, at every level."""
    seen = []
    inner = sets(pf.AsyncParallelBatchFlow, {"b": 1}, {"b": 2})(start=recorder(pf, seen))
    outer = sets(pf.AsyncParallelBatchFlow, {"a": 1}, {"a": 2})(start=inner)
    asyncio.run(outer.run_async({}))
    return sorted(map(str, seen))


@same
def test_batch_flows_post(pf):
    """post of a batch flow gets the sets and None; None from prep reads as an empty list."""

    class Sets(pf.BatchFlow):
        def prep(self, shared):
            return shared

        def post(self, shared, prep_res, exec_res):
            return prep_res, exec_res

    class AsyncSets(pf.AsyncParallelBatchFlow):
        async def prep_async(self, shared):
            return shared

        async def post_async(self, shared, prep_res, exec_res):
            return prep_res, exec_res

    given = ([{"a": 1}], [], None)
    plain = [Sets(start=pf.Node()).run(one) for one in given]
    return plain, [asyncio.run(AsyncSets(start=pf.Node()).run_async(one)) for one in given]


@same
def test_a_batch_flow_runs_all_nodes_for_each_set(pf):
    """Run by run, in order, each from the start."""
    seen = []

    class Step(pf.Node):
        def prep(self, shared):
            seen.append((type(self).__name__, self.params["n"]))

    class First(Step):
        pass

    class Second(Step):
        pass

    first = First()
    first >> Second()
    sets(pf.BatchFlow, {"n": 1}, {"n": 2})(start=first).run({})
    return seen


# Async -------------------------------------------------------------------------


@same
def test_async_classes_have_no_run(pf):
    """run of an async node is a RuntimeError, alone and in a synchronous flow."""
    for thing in (pf.AsyncNode(), pf.AsyncBatchNode(), pf.Flow(start=pf.AsyncNode())):
        with pytest.raises(RuntimeError, match="run_async"):
            thing.run({})
    return True


@same
def test_mixed_nodes_in_an_async_flow(pf):
    """Plain nodes, async nodes and plain flows follow each other in one async flow."""

    class Plain(pf.Node):
        def post(self, shared, prep_res, exec_res):
            shared.append("plain")

    class Later(pf.AsyncNode):
        async def prep_async(self, shared):
            await asyncio.sleep(0)

        async def post_async(self, shared, prep_res, exec_res):
            shared.append("later")
            return "x"

    a, b = Plain(), Later()
    flow = pf.Flow(start=Plain())
    a >> b
    b - "x" >> flow
    flow >> Later()
    shared = []
    return asyncio.run(pf.AsyncFlow(start=a).run_async(shared)), shared


@same
def test_a_plain_node_is_atomic(pf):
    """200 parallel increments through shared, read in prep and written in post, stay exact."""

    class Yields(pf.AsyncNode):
        async def exec_async(self, prep_res):
            await asyncio.sleep(0)

    class Adds(pf.Node):
        def prep(self, shared):
            return shared["n"]

        def exec(self, n):
            return n + 1

        def post(self, shared, prep_res, exec_res):
            shared["n"] = exec_res

    class AddsInABatch(pf.BatchNode):
        def prep(self, shared):
            return [shared["n"]]

        def exec(self, n):
            return n + 1

        def post(self, shared, prep_res, exec_res):
            shared["n"] = exec_res[0]

    shared = {"n": 0}
    for kind in (Adds, AddsInABatch):
        first = Yields()
        first >> kind(max_retries=2) >> pf.Flow(start=kind())
        asyncio.run(
            sets(pf.AsyncParallelBatchFlow, *({"i": i} for i in range(200)))(start=first).run_async(shared)
        )
    return shared


@same
def test_branches_hand_over_between_post_and_prep(pf):
    """Nothing runs between one node's post and the next prep: what was put into shared is there."""
    wrong = []

    class Writes(pf.AsyncNode):
        async def exec_async(self, prep_res):
            await asyncio.sleep(0)

        async def post_async(self, shared, prep_res, exec_res):
            shared["current"] = self.params["i"]

    class Reads(pf.AsyncNode):
        async def prep_async(self, shared):
            if shared["current"] != self.params["i"]:
                wrong.append(self.params["i"])
            return self.params["i"]

        async def exec_async(self, i):
            await asyncio.sleep(0)

        async def post_async(self, shared, prep_res, exec_res):
            shared["current"] = prep_res

    writes = Writes()
    writes >> Reads() >> pf.AsyncFlow(start=Reads())
    flow = sets(pf.AsyncParallelBatchFlow, *({"i": i} for i in range(50)))(start=writes)
    shared = {}
    asyncio.run(flow.run_async(shared))
    return wrong


@same
def test_parallel_runs_share_shared(pf):
    """There is one shared for all runs."""

    class Step(pf.AsyncNode):
        async def post_async(self, shared, prep_res, exec_res):
            shared.setdefault("seen", []).append(self.params["i"])

    shared = {}
    asyncio.run(
        sets(pf.AsyncParallelBatchFlow, *({"i": i} for i in range(5)))(start=Step()).run_async(shared)
    )
    return sorted(shared["seen"])


# Classes of the user's own -----------------------------------------------------


@same
def test_own_init_attributes_and_properties(pf):
    """Subclasses with their own __init__, class attributes, properties and methods."""

    class Greets(pf.Node):
        greeting = "Hello"

        def __init__(self, who, *rest, **settings):
            super().__init__(*rest, **settings)
            self.who = who

        @property
        def text(self):
            return f"{self.greeting}, {self.who}"

        def exec(self, prep_res):
            return self.text

        def post(self, shared, prep_res, exec_res):
            shared.append(exec_res)

    class Polite(Greets):
        greeting = "Good day"

    shared = []
    first = Greets("Ada", 2, wait=0)
    first >> Polite("Alan", max_retries=3)
    pf.Flow(start=first).run(shared)
    return shared


@same
def test_multiple_inheritance(pf):
    """Mixins before a node class, and super() through them."""
    calls = []

    class Logs:
        def prep(self, shared):
            calls.append("logged prep")
            return super().prep(shared)

        def exec(self, prep_res):
            calls.append("logged exec")
            return super().exec(prep_res)

    class Step(pf.Node):
        def prep(self, shared):
            return 3

        def exec(self, prep_res):
            return prep_res + 1

        def post(self, shared, prep_res, exec_res):
            return exec_res

    class Logged(Logs, Step):
        pass

    return pf.Flow(start=Logged()).run({}), calls


@same
def test_instances_may_be_patched(pf):
    """Functions put onto an instance are called, in the copies that a flow makes too."""
    node = pf.Node()
    node.prep = lambda shared: shared["x"]
    node.exec = Mock(return_value=5)
    node.post = lambda shared, prep_res, exec_res: f"{prep_res} {exec_res}"
    action = pf.Flow(start=node).run({"x": 1})
    return action, node.exec.call_args.args


@same
def test_async_mocks(pf):
    """AsyncMock stands in for the async parts; MagicMock for what they talk to."""
    node = pf.AsyncNode(max_retries=2)
    node.prep_async = AsyncMock(return_value="in")
    node.exec_async = AsyncMock(side_effect=[OSError("once"), "out"])
    node.post_async = AsyncMock(return_value="action")
    client = MagicMock()
    shared = {"client": client}
    action = asyncio.run(pf.AsyncFlow(start=node).run_async(shared))
    return action, node.exec_async.await_count, node.post_async.await_args.args[1:]


@same
def test_parts_can_be_called_by_hand(pf):
    """prep, exec, post and exec_fallback are plain methods, for unit tests."""

    class Step(pf.Node):
        def exec(self, prep_res):
            return prep_res * 2

    step = Step()
    with pytest.raises(KeyError):
        step.exec_fallback(None, KeyError("x"))
    return step.exec(4), [step.prep({}), step.post({}, None, None)]
