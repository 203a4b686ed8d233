"""`check(flow)`: each kind of finding, and what must not be one."""

from __future__ import annotations

import pytest

from asyncflow import AsyncFlow, AsyncNode, Flow, Node, check
from asyncflow.graph.outline import outline


def kinds(flow):
    return [problem.kind for problem in check(flow)]


class Plain(Node):
    pass


def test_a_sound_flow_has_no_findings():
    """Nodes in a row, with a default post, are fine."""
    flow, first = Flow(), Plain()
    flow.start(first) >> Plain() >> Plain()
    assert check(flow) == []


def test_missing_start():
    """A flow without a start is found, inside another flow too, with the way to it."""
    [problem] = check(Flow(name="outer", start=Flow(name="inner")))
    assert (problem.kind, problem.where) == ("missing start", "outer / inner")
    assert "flow.start(node)" in problem.text
    assert str(problem) == f"outer / inner: missing start: {problem.text}"


@pytest.mark.parametrize("start", [Plain, "node", 3])
def test_bad_start(start):
    """A start that is no node is found, and a class is told to become an instance."""
    [problem] = check(Flow(name="outer", start=Flow(name="inner", start=start)))
    assert (problem.kind, problem.where) == ("bad start", "outer / inner")
    assert ("make an instance" in problem.text) is (start is Plain)
    with pytest.raises(TypeError, match="not a node or flow"):
        outline(Flow(start=start))


@pytest.mark.parametrize("thing", [Plain(), Plain, Flow, None])
def test_only_flows_can_be_checked(thing):
    """A node, a class or nothing at all is refused with what to do."""
    with pytest.raises(TypeError, match="is not a flow"):
        check(thing)
    with pytest.raises(TypeError, match="is not a flow"):
        outline(thing)


# Actions -----------------------------------------------------------------------


class Chooses(Node):
    def post(self, shared, prep_res, exec_res):
        if shared:
            return "again"
        return "done" if prep_res else None


class ChoosesAsync(AsyncNode):
    async def post_async(self, shared, prep_res, exec_res):
        return "again"


class ChoosesPlainly(AsyncNode):
    def post(self, shared, prep_res, exec_res):
        return "again"


def found(node, *actions):
    for action in actions:
        node - action >> Plain()
    flow = AsyncFlow(start=node)
    return [(problem.kind, problem.text.split("'")[1]) for problem in check(flow)]


def test_unhandled_actions():
    """A literal action without a successor is found, the default that None means too."""
    assert found(Chooses(), "again") == [("unhandled action", "default"), ("unhandled action", "done")]
    assert found(Chooses(), "again", "done", "default") == []


@pytest.mark.parametrize("kind", [ChoosesAsync, ChoosesPlainly])
def test_actions_of_async_nodes(kind):
    """The form of post that runs is the one that is read."""
    assert found(kind(), "agian") == [("unhandled action", "again"), ("action never returned", "agian")]
    assert found(kind(), "again") == []


def test_a_node_without_successors_may_return_what_it_likes():
    """The last node's action is the flow's: nothing to find."""
    assert check(Flow(start=Chooses())) == []


def test_a_default_post_never_returns_an_action():
    """A node without a post of its own leads nowhere but to the default."""
    assert found(Plain(), "again") == [
        ("unhandled action", "default"),
        ("action never returned", "again"),
    ]


def test_computed_actions_are_not_judged():
    """What a post computes cannot be seen, so no successor is called superfluous."""

    class Computes(Node):
        def post(self, shared, prep_res, exec_res):
            def inner():
                return "not an action of this node"

            return shared["action"] if shared else "end"

    assert found(Computes(), "a", "end") == []
    patched = Plain()
    patched.post = lambda shared, prep_res, exec_res: "a"
    assert found(patched, "a") == []


class TryElse(Node):
    def post(self, shared, prep_res, exec_res):
        try:
            shared["n"] += 1
        except KeyError:
            return "a"
        else:
            return "b"


class Finally(Node):
    def post(self, shared, prep_res, exec_res):
        try:
            return "a"
        finally:
            shared.clear()


class Match(Node):
    def post(self, shared, prep_res, exec_res):
        match shared:
            case {"n": 1}:
                return "a"
            case _:
                return "b"


class Endless(Node):
    def post(self, shared, prep_res, exec_res):
        while True:
            if shared:
                return "a"


class With(Node):
    def post(self, shared, prep_res, exec_res):
        with shared["lock"]:
            if shared["n"]:
                return "a"
            elif shared["m"]:
                raise ValueError
            else:
                return "b"


@pytest.mark.parametrize("kind", [TryElse, Finally, Match, Endless, With])
def test_a_post_that_always_returns_has_no_default(kind):
    """Only a body that can run off its end returns None."""
    actions = ("a",) if kind in (Finally, Endless) else ("a", "b")
    assert found(kind(), *actions) == []


class MatchWithoutRest(Node):
    def post(self, shared, prep_res, exec_res):
        match shared:
            case {"n": 1}:
                return "a"


class Breaks(Node):
    def post(self, shared, prep_res, exec_res):
        while True:
            if shared:
                return "a"
            break


class TriesOn(Node):
    def post(self, shared, prep_res, exec_res):
        try:
            return "a"
        except KeyError:
            pass


@pytest.mark.parametrize("kind", [MatchWithoutRest, Breaks, TriesOn])
def test_a_post_that_can_run_off_its_end_has_a_default(kind):
    """A way past every return is the default action."""
    assert found(kind(), "a") == [("unhandled action", "default")]


# Nodes -------------------------------------------------------------------------


def test_unreachable_nodes():
    """A node that leads into the flow, at any distance, and that nothing leads to, is found."""
    start, end = Plain(name="start"), Plain(name="end")
    stray, farther = Plain(name="stray"), Plain(name="farther")
    start >> end
    farther >> stray >> end
    problems = check(Flow(name="flow", start=start))
    assert [(problem.kind, problem.where) for problem in problems] == [
        ("unreachable node", "flow / stray"),
        ("unreachable node", "flow / farther"),
    ]
    assert "leads to end" in problems[0].text


def test_a_node_in_two_flows():
    """One object in two flows shares its successors; joins and loops within one flow are fine."""
    both = Plain(name="both")
    first, second = Flow(name="first", start=both), Flow(name="second", start=both)
    first >> second
    [problem] = check(Flow(name="outer", start=first))
    assert (problem.kind, problem.where) == ("node in two flows", "outer / second / both")
    assert "outer / first" in problem.text
    a, b, c = Plain(), Plain(), Plain()
    a >> b >> c
    c.post = lambda shared, prep_res, exec_res: "again"
    c - "again" >> a
    assert check(Flow(start=a)) == []


def test_a_node_in_two_flows_of_the_same_name():
    """Flows are told apart as objects: names, such as the class's, may be the same."""
    both = Plain(name="both")
    first, second = Flow(start=both), Flow(start=both)
    first >> second
    [problem] = check(Flow(start=first))
    assert (problem.kind, problem.where) == ("node in two flows", "Flow / Flow#2 / both")
    assert "part of Flow / Flow," in problem.text


def test_a_flow_used_twice_is_one_finding():
    """The flow is in two flows; the nodes inside it are in one, that flow."""
    inner = Flow(name="inner", start=Plain(name="node"))
    first, second = Flow(name="first", start=inner), Flow(name="second", start=inner)
    first >> second
    problems = check(Flow(name="outer", start=first))
    assert [(problem.kind, problem.where) for problem in problems] == [
        ("node in two flows", "outer / second / inner")
    ]


def test_a_flow_inside_itself():
    """Recursion by graph is found, whatever lies between."""
    outer, inner = Flow(name="outer"), Flow(name="inner")
    outer.start(Plain()) >> inner
    inner.start(outer)
    assert kinds(outer) == ["flow inside itself"]
    with pytest.raises(ValueError, match="outer contains itself"):
        outline(outer)


def test_async_nodes_in_a_synchronous_flow():
    """Found wherever they lie; an async flow may hold plain ones."""
    inner = Flow(name="inner", start=AsyncNode(name="node"))
    problems = check(AsyncFlow(name="outer", start=inner))
    assert [(problem.kind, problem.where) for problem in problems] == [
        ("async node in a synchronous flow", "outer / inner / node")
    ]
    assert check(AsyncFlow(start=Plain())) == []


def test_nothing_is_run():
    """Checking calls no part of a node."""

    class Fails(Node):
        def prep(self, shared):
            raise AssertionError

        exec = post = prep

    assert check(Flow(start=Fails())) == []
