"""Which nodes belong to a flow, and what they are called there."""

from __future__ import annotations

from asyncflow.engine.failure import describe
from asyncflow.errors import FlowError, MissingStartError
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


def refuse_circle(flow: BaseNode) -> None:
    """Say of a run that went too deep that a flow in it contains itself, if one does.

    Such a flow may also end, by its actions, so only a run that did not is refused.
    """
    todo: list[tuple[BaseNode, tuple[BaseNode, ...]]] = [(flow, ())]
    seen: set[int] = set()
    while todo:
        current, around = todo.pop()
        if any(current is outer for outer in around):
            raise FlowError(
                f"{label(current)} contains itself, and this run of it went deeper and deeper without an "
                "end; lead back to a node with an action, or make one flow for each level"
            ) from None
        if id(current) in seen:
            continue
        seen.add(id(current))
        flows = (
            node for node in reachable(current) if isinstance(getattr(node, "start_node", None), BaseNode)
        )
        todo += [(node, (*around, current)) for node in flows]
