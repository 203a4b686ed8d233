"""`check(flow)`: what is wrong with a graph, found before anything runs."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from asyncflow.errors import MissingStartError
from asyncflow.graph.async_node import AsyncNode
from asyncflow.graph.base import BaseNode, label
from asyncflow.graph.flow import Flow
from asyncflow.graph.outline import refuse_other_than_flow
from asyncflow.graph.reach import ids, reachable

#: Of each node by its id: the flow in which it was met first, and that flow's path.
_Homes = dict[int, tuple[Flow, str]]


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding.

    Attributes:
        kind: "missing start", "bad start", "unreachable node", "unhandled action", "action never returned",
            "node in two flows", "flow inside itself" or "async node in a synchronous flow".
        where: The node, behind the names of the flows around it.
        text: What it means and what to do.
    """

    kind: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}: {self.text}"


def check(flow: Flow) -> list[Problem]:
    """Look at a flow, and at the flows inside it, without running anything.

    Finds flows without a start, or with one that is no node; nodes that lead into the flow but cannot be
    reached from its start; actions that a `post` returns as a literal string and that no successor handles,
    where the node has successors; successors whose action its `post` never returns; one node object in two
    flows, whose successors it then shares; a flow inside itself; asynchronous nodes in a synchronous flow.

    Raises:
        TypeError: If it is given something other than a flow.

    Returns:
        The findings; an empty list means that nothing was found, not that nothing is wrong: actions that
        are computed cannot be seen.

    Example:
        >>> from asyncflow.graph.node import Node
        >>> class Ask(Node):
        ...     def post(self, shared, prep_res, exec_res):
        ...         return "yes"
        >>> ask = Ask()
        >>> _ = ask - "no" >> Node()
        >>> [problem.kind for problem in check(Flow(start=ask))]
        ['unhandled action', 'action never returned']
    """
    refuse_other_than_flow(flow)
    return list(_look(flow, label(flow), (), {}))


def _look(flow: Flow, path: str, around: tuple[Flow, ...], homes: _Homes) -> Iterator[Problem]:
    """The findings in a flow, and in the flows inside it."""
    if any(flow is outer for outer in around):
        yield Problem("flow inside itself", path, "it would run without end")
        return
    try:
        nodes = reachable(flow)
    except TypeError as exc:
        yield Problem("bad start", path, str(exc))
        return
    except MissingStartError:
        yield Problem("missing start", path, "make it with start=node, or call flow.start(node)")
        return
    names = ids(nodes)
    for node in nodes:
        where = f"{path} / {names[id(node)]}"
        yield from _of_node(node, where, flow, path, homes)
        if isinstance(node, Flow):
            yield from _look(node, where, (*around, flow), homes)
    for node, following in _strays(nodes):
        text = f"it leads to {label(following)}, but nothing leads to it from the start"
        yield Problem("unreachable node", f"{path} / {label(node)}", text)


def _of_node(node: BaseNode, where: str, flow: Flow, path: str, homes: _Homes) -> Iterator[Problem]:
    """The findings at one node of a flow."""
    home, home_path = homes.setdefault(id(node), (flow, path))
    if home is not flow:
        text = f"the same object is part of {home_path}, and so are its successors; make one for each flow"
        yield Problem("node in two flows", where, text)
    if isinstance(node, AsyncNode) and not isinstance(flow, AsyncNode):
        yield Problem("async node in a synchronous flow", where, "use AsyncFlow, or a plain node")
    yield from _actions(node, where)


def _strays(nodes: list[BaseNode]) -> list[tuple[BaseNode, BaseNode]]:
    """Nodes outside the list that lead into it, each with the first node of the list that it leads to."""
    known = {id(node) for node in nodes}
    found: list[tuple[BaseNode, BaseNode]] = []
    todo = list(nodes)
    for node in todo:
        for before in node.predecessors():
            if id(before) not in known:
                known.add(id(before))
                found.append((before, node))
                todo.append(before)
    return found


def _actions(node: BaseNode, where: str) -> list[Problem]:
    """Compare the actions that `post` returns as literals with those that are handled."""
    returned, complete = _literal_actions(node)
    handled = set(node.successors)
    if not handled:
        return []
    problems = [
        Problem(
            "unhandled action",
            where,
            f"post returns {action!r}, which leads nowhere: the flow would end there; handled are "
            f"{sorted(handled)}",
        )
        for action in sorted(returned - handled)
    ]
    if complete:
        problems += [
            Problem(
                "action never returned",
                where,
                f"{action!r} leads to {label(node.successors[action])}, but post never returns it",
            )
            for action in sorted(handled - returned)
        ]
    return problems


def _literal_actions(node: BaseNode) -> tuple[set[str], bool]:
    """The actions that `post` returns as literals, and whether those are all that it can return."""
    if isinstance(node, Flow):
        return set(), False
    is_async = isinstance(node, AsyncNode) and "post" not in node._plain_parts
    post = getattr(node, "post_async" if is_async else "post")
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(post)))
    except (OSError, TypeError, SyntaxError):
        return set(), False
    function = tree.body[0]
    if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return set(), False
    actions: set[str] = set()
    complete = True
    values = [statement.value for statement in _returns(function)]
    # A body that can run off its end returns None too. Only a last statement that always leaves says not.
    if not isinstance(function.body[-1], (ast.Return, ast.Raise)) and not _leaves(function.body[-1]):
        values.append(None)
    todo = list(values)
    for value in todo:
        if value is None or (isinstance(value, ast.Constant) and value.value in (None, "")):
            actions.add("default")
        elif isinstance(value, ast.Constant) and isinstance(value.value, str):
            actions.add(value.value)
        elif isinstance(value, ast.IfExp):
            todo += [value.body, value.orelse]
        else:
            complete = False
    return actions, complete


def _returns(function: ast.AST) -> list[ast.Return]:
    """The return statements of a function, those of functions inside it left out."""
    found: list[ast.Return] = []
    todo = list(ast.iter_child_nodes(function))
    for node in todo:
        if isinstance(node, ast.Return):
            found.append(node)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            todo += ast.iter_child_nodes(node)
    return found


def _leaves(statement: ast.stmt) -> bool:
    """Whether a statement never lets the code after it run, as far as its form tells."""
    if isinstance(statement, (ast.Return, ast.Raise)):
        return True
    if isinstance(statement, ast.If):
        return bool(statement.orelse) and _leaves(statement.body[-1]) and _leaves(statement.orelse[-1])
    if isinstance(statement, (ast.With, ast.AsyncWith)):
        return _leaves(statement.body[-1])
    if isinstance(statement, ast.While):
        endless = isinstance(statement.test, ast.Constant) and bool(statement.test.value)
        return endless and not any(isinstance(node, ast.Break) for node in ast.walk(statement))
    if isinstance(statement, ast.Match):
        last = statement.cases[-1]
        complete = (
            last.guard is None and isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None
        )
        return complete and all(_leaves(case.body[-1]) for case in statement.cases)
    if isinstance(statement, (ast.Try, ast.TryStar)):
        if statement.finalbody and _leaves(statement.finalbody[-1]):
            return True
        body = statement.orelse or statement.body
        return _leaves(body[-1]) and all(_leaves(handler.body[-1]) for handler in statement.handlers)
    return False
