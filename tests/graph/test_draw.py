"""`outline` and `to_mermaid`."""

from __future__ import annotations

import re

import pytest

from asyncflow import AsyncFlow, AsyncParallelBatchNode, Flow, Node
from asyncflow.errors import MissingStartError
from asyncflow.graph.outline import Edge, outline


def small():
    first, second = Node(name="read"), AsyncParallelBatchNode(name="work", concurrency=8)
    inner = AsyncFlow(start=second, name="inner")
    first - "go" >> inner
    inner >> first
    return AsyncFlow(start=first, name="outer")


def test_outline():
    """Nodes in the order in which they are reached, edges by id, what is inside a flow; hashable."""
    found = outline(small())
    assert (found.name, found.kind, found.start) == ("outer", "AsyncFlow", "read")
    assert [
        (node.id, node.kind, node.batch, node.asynchronous, node.concurrency) for node in found.nodes
    ] == [
        ("read", "Node", False, False, 1),
        ("inner", "AsyncFlow", False, True, 1),
    ]
    assert found.nodes[1].flow.nodes[0].concurrency == 8
    assert found.edges == (Edge("read", "go", "inner"), Edge("inner", "default", "read"))
    assert hash(found) == hash(outline(small())) and found == outline(small())


def test_equal_names_are_told_apart():
    """The second and third node of a name get a number."""
    first = Node()
    first >> Node() >> Node()
    assert [node.id for node in outline(Flow(start=first)).nodes] == ["Node", "Node#2", "Node#3"]


def test_mermaid():
    """Boxes, stacked boxes with their concurrency, frames and labelled arrows."""
    assert small().to_mermaid().splitlines() == [
        "flowchart TD",
        '    n1["read"]',
        '    subgraph n2["inner"]',
        '        n3[["work × 8"]]',
        "    end",
        "    n1 -->|go| n2",
        "    n2 --> n1",
    ]


@pytest.mark.parametrize(
    "text", ['a"]; click n1 "x', "%%{init}%%", "<b>", "a|b", "#quot;", "`x`", "a\nb", "end[[("]
)
def test_nothing_escapes_its_label(text):
    """Names and actions cannot close a box, open a directive, or bring in markup."""
    first = Node(name=text)
    first - text >> Node()
    chart = Flow(start=first).to_mermaid()
    assert len(chart.splitlines()) == 4
    label = chart.splitlines()[1].removeprefix('    n1["').removesuffix('"]')
    assert not set(label) & set('"[](){}<>|%`\n&')
    assert re.sub(r"#(\d+);", lambda found: chr(int(found[1])), label) == text


def test_a_flow_without_start_cannot_be_drawn():
    """The same error as when it is run."""
    with pytest.raises(MissingStartError):
        Flow().to_mermaid()
    with pytest.raises(MissingStartError, match="inner"):
        Flow(start=Flow(name="inner")).to_mermaid()


def test_repr_names_what_follows():
    """A node's repr shows its successors by name, without running into loops."""
    node = Node(name="ask")
    node - "again" >> node
    assert repr(node) == "<ask: 'again' -> ask>"
    assert repr(Node()) == "<Node>"
