"""Which nodes belong to a flow, and what they are called there."""

from __future__ import annotations

from asyncflow.engine.failure import describe
from asyncflow.errors import MissingStartError
from asyncflow.graph.base import BaseNode, label


def check_start(flow: BaseNode) -> BaseNode:
    """The start node.

    Raises:
        MissingStartError, TypeError: If there is none, or it is no node.
    """
    node = getattr(flow, "start_node", None)
    if node is None:
        raise MissingStartError(
            f"{label(flow)} has no start node; make it with {type(flow).__name__}(start=node) or call "
            "flow.start(node)"
        )
    if not isinstance(node, BaseNode):
        raise TypeError(
            f"{label(flow)}: the start is {describe(node)} ({type(node).__name__}), not a node or flow"
            + ("; make an instance of it" if isinstance(node, type) else "")
        )
    return node


def reachable(flow: BaseNode) -> list[BaseNode]:
    """The nodes of a flow itself, in the order in which they are reached, breadth first."""
    start = check_start(flow)
    found: dict[int, BaseNode] = {id(start): start}
    todo = [start]
    for node in todo:
        for following in node.successors.values():
            if id(following) not in found:
                found[id(following)] = following
                todo.append(following)
    return todo


def ids(nodes: list[BaseNode]) -> dict[int, str]:
    """A name for each node, made unique within the list."""
    names: dict[int, str] = {}
    seen: dict[str, int] = {}
    for node in nodes:
        name = label(node)
        seen[name] = seen.get(name, 0) + 1
        names[id(node)] = name if seen[name] == 1 else f"{name}#{seen[name]}"
    return names
