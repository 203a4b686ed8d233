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
