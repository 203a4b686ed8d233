"""A frozen description of a flow: what is joined to what, without the code.

Drawings and checks are made from it, and so will be the comparison of a stored run with today's program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from asyncflow.graph.async_node import AsyncNode
from asyncflow.graph.base import BaseNode, label
from asyncflow.graph.batch import BatchNode
from asyncflow.graph.batch_flow import BatchFlow
from asyncflow.graph.flow import Flow
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


@dataclass(frozen=True, slots=True)
class Part:
    """What of a node decides whether its stored results still hold.

    Attributes:
        execs: The functions that make its results.
        version: What it declares instead, or None.
        params: Those that a flow was given by hand.
    """

    execs: tuple[Callable[..., Any], ...]
    version: str | None
    params: Mapping[str, Any]


def parts(node: BaseNode) -> dict[str, Part]:
    """The parts of a node, or of a flow and all that is in it, by path: names joined by slashes."""
    found: dict[str, Part] = {}
    _parts(node, label(node), found)
    return found


def _parts(node: BaseNode, path: str, found: dict[str, Part]) -> None:
    if not isinstance(node, Flow):
        plainly = not isinstance(node, AsyncNode) or "exec" in node._plain_parts
        call = node.exec if plainly else getattr(node, "exec_async", node.exec)
        found[path] = Part((call,), node.version, {})
        return
    found[path] = Part((), node.version, dict(node.params))
    nodes = reachable(node)
    names = ids(nodes)
    for inner in nodes:
        _parts(inner, f"{path}/{names[id(inner)]}", found)
