"""A flow as a Mermaid flow chart, which GitHub, notebooks and many editors show as a picture."""

from __future__ import annotations

from asyncflow.graph.flow import Flow
from asyncflow.graph.outline import FlowOutline, NodeOutline, outline


def to_mermaid(flow: Flow) -> str:
    """The chart: boxes for nodes, stacked boxes for batch nodes, frames for flows, labels for actions.

    Raises:
        MissingStartError: If a flow has no start node.

    Example:
        >>> from asyncflow.graph.node import Node
        >>> first, second = Node(name="first"), Node(name="second")
        >>> _ = first - "retry" >> first
        >>> _ = first >> second
        >>> print(to_mermaid(Flow(start=first)))
        flowchart TD
            n1["first"]
            n2["second"]
            n1 -->|retry| n1
            n1 --> n2
    """
    lines = ["flowchart TD"]
    _Chart(lines).draw(outline(flow), "    ")
    return "\n".join(lines)


class _Chart:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._count = 0

    def draw(self, flow: FlowOutline, indent: str) -> str:
        """Draw what is inside a flow; returns the id of its first box."""
        boxes: dict[str, str] = {}
        for node in flow.nodes:
            self._count += 1
            box = boxes[node.id] = f"n{self._count}"
            if node.flow is None:
                opened, closed = ("[[", "]]") if node.batch else ("[", "]")
                self._lines.append(f'{indent}{box}{opened}"{_text(_title(node))}"{closed}')
            else:
                self._lines.append(f'{indent}subgraph {box}["{_text(_title(node))}"]')
                self.draw(node.flow, indent + "    ")
                self._lines.append(f"{indent}end")
        for edge in flow.edges:
            action = "" if edge.action == "default" else f"|{_text(edge.action)}|"
            self._lines.append(f"{indent}{boxes[edge.source]} -->{action} {boxes[edge.target]}")
        return boxes[flow.start]


def _title(node: NodeOutline) -> str:
    return f"{node.id} × {node.concurrency}" if node.batch and node.concurrency > 1 else node.id


def _text(text: str) -> str:
    """Escaped for Mermaid: entities, so that no name can close its box or smuggle in a directive."""
    return "".join(
        character if character.isalnum() or character in " _-.,×" else f"#{ord(character)};"
        for character in text
    )
