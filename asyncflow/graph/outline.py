"""A frozen description of a flow: what is joined to what, without the code.

Drawings and checks are made from it, and so will be the comparison of a stored run with today's program.
"""

from __future__ import annotations

from dataclasses import dataclass

from asyncflow.graph.async_node import AsyncNode
from asyncflow.graph.base import label
from asyncflow.graph.batch import BatchNode
from asyncflow.graph.flow import BatchFlow, Flow
from asyncflow.graph.reach import ids, reachable


@dataclass(frozen=True, slots=True)
class NodeOutline:
    """One node of a flow.

    Attributes:
        id: Its name, with `#2`, `#3` … where several nodes of the flow have the same.
        kind: Its class.
        batch: Whether it runs once for each of several items or parameter sets.
        asynchronous: Whether it needs an event loop.
        concurrency: Items or runs at work at once.
        flow: What is inside, if it is a flow.
    """

    id: str
    kind: str
    batch: bool
    asynchronous: bool
    concurrency: int
    flow: FlowOutline | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """`source` leads to `target` (ids) after `action`."""

    source: str
    action: str
    target: str


@dataclass(frozen=True, slots=True)
class FlowOutline:
    """A flow: its nodes in the order in which they are reached, and its edges."""

    name: str
    kind: str
    start: str
    nodes: tuple[NodeOutline, ...]
    edges: tuple[Edge, ...]


def outline(flow: Flow) -> FlowOutline:
    """Describe a flow.

    Raises:
        MissingStartError: If it, or a flow inside it, has no start node.
        TypeError: If what it starts with is no node, or it is no flow.
        ValueError: If a flow contains itself.
    """
    refuse_other_than_flow(flow)
    return _outline(flow, ())


def refuse_other_than_flow(flow: object) -> None:
    """Say what a flow is to who gives something else."""
    if not isinstance(flow, Flow):
        hint = "make an instance of it" if isinstance(flow, type) else "put a node into one: Flow(start=node)"
        raise TypeError(f"{flow!r} is not a flow; {hint}")


def _outline(flow: Flow, around: tuple[Flow, ...]) -> FlowOutline:
    if any(flow is outer for outer in around):
        raise ValueError(f"{label(flow)} contains itself")
    nodes = reachable(flow)
    names = ids(nodes)
    return FlowOutline(
        name=label(flow),
        kind=type(flow).__name__,
        start=names[id(nodes[0])],
        nodes=tuple(
            NodeOutline(
                id=names[id(node)],
                kind=type(node).__name__,
                batch=isinstance(node, (BatchNode, BatchFlow)),
                asynchronous=isinstance(node, AsyncNode),
                concurrency=node.concurrency,
                flow=_outline(node, (*around, flow)) if isinstance(node, Flow) else None,
            )
            for node in nodes
        ),
        edges=tuple(
            Edge(names[id(node)], action, names[id(following)])
            for node in nodes
            for action, following in node.successors.items()
        ),
    )
