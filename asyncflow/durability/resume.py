"""May this program go on with that run? Pure comparison of what a program is made of.

A fingerprint holds the flow's joints, the nodes' names and classes, the code of each `exec` or its declared
version, and parameters; never inputs, concurrency, retries or timeouts. The code is its syntax tree, so that
comments, layout, docstrings and the name of the file do not matter; what `exec` calls is not followed:
declare a `version` where that matters.
"""

from __future__ import annotations

import ast
import functools
import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from asyncflow.graph.outline import FlowOutline


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a program is made of.

    Attributes:
        nodes: Path of a node (`"Outer/Inner/Node#2"`) to its facts, each a text.
        edges: `"Outer: A - 'action' >> B"`, and where each flow starts.
    """

    nodes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    edges: tuple[str, ...] = ()

    def to_text(self) -> str:
        """JSON, stable."""
        return json.dumps(
            {"nodes": {k: dict(v) for k, v in self.nodes.items()}, "edges": self.edges}, sort_keys=True
        )

    @staticmethod
    def from_text(text: str) -> Fingerprint:
        """What `to_text` wrote."""
        found = json.loads(text)
        return Fingerprint(found.get("nodes", {}), tuple(found.get("edges", ())))


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which two programs differ; `node` is its path, or None where it is about the joints."""

    node: str | None
    text: str


def of_outline(outline: FlowOutline, facts: Mapping[str, Mapping[str, str]]) -> Fingerprint:
    """The fingerprint of a flow.

    Args:
        facts: By the node's path: what `facts_of` says of it. Flows inside need none.
    """
    nodes: dict[str, Mapping[str, str]] = {}
    edges: list[str] = []

    def walk(flow: FlowOutline, path: str) -> None:
        edges.append(f"{path} starts at {flow.start}")
        edges.extend(f"{path}: {edge.source} - {edge.action!r} >> {edge.target}" for edge in flow.edges)
        for node in flow.nodes:
            inner = f"{path}/{node.id}"
            kind = f"{'batch ' if node.batch else ''}{'flow' if node.flow else 'node'} {node.kind}"
            nodes[inner] = {"kind": kind, **facts.get(inner, {})}
            if node.flow is not None:
                walk(node.flow, inner)

    nodes[outline.name] = {"kind": f"flow {outline.kind}", **facts.get(outline.name, {})}
    walk(outline, outline.name)
    return Fingerprint(nodes, tuple(sorted(edges)))


def facts_of(
    execs: Iterable[Callable[..., Any]], *, version: object = None, params: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """What a node is made of: its declared version, else the code of its steps; and its parameters."""
    found = (
        {"code": "+".join(code_digest(each) for each in execs)}
        if version is None
        else {"version": str(version)}
    )
    if params:
        # Digests: a parameter may be a key, and what is stored may be read by others.
        digests = {
            str(name): _digest(json.dumps(params[name], sort_keys=True, default=repr)) for name in params
        }
        found["params"] = json.dumps(digests, sort_keys=True)
    return found


def compare(before: Fingerprint, now: Fingerprint) -> list[Difference]:
    """How the program has changed since the run was recorded, as sentences; empty: it has not."""
    found = [Difference(name, f"{name} is gone") for name in before.nodes if name not in now.nodes]
    found += [Difference(name, f"{name} is new") for name in now.nodes if name not in before.nodes]
    for name, then in before.nodes.items():
        if name in now.nodes:
            found += [Difference(name, text) for text in _changes(name, then, now.nodes[name])]
    found += [Difference(None, f"no longer: {edge}") for edge in before.edges if edge not in now.edges]
    found += [Difference(None, f"now: {edge}") for edge in now.edges if edge not in before.edges]
    return found


def _changes(name: str, then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    if then.get("code") is not None and now.get("code") is not None and then["code"] != now["code"]:
        return [f"{name}: the code of exec has changed", *_rest(name, then, now)]
    return _rest(name, then, now)


def _rest(name: str, then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    found = _params(name, then.get("params"), now.get("params"))
    return found + [
        f"{name}: {fact} was {then.get(fact, 'not set')}, is {now.get(fact, 'not set')}"
        for fact in sorted({*then, *now} - {"code", "params"})
        if then.get(fact) != now.get(fact)
    ]


def _params(name: str, then: str | None, now: str | None) -> list[str]:
    before, after = (json.loads(text) if text is not None else {} for text in (then, now))
    return [
        f"{name}: the parameter {each!r} "
        + ("is new" if each not in before else "is gone" if each not in after else "has changed")
        for each in sorted({*before, *after})
        if before.get(each) != after.get(each)
    ]


def code_digest(function: Callable[..., Any]) -> str:
    """32 characters that change when the code of a function does: its syntax tree, where there is source.

    Without source (a console, a lambda among others on its line) it is the byte code, which also changes with
    the version of Python. Defaults and what a closure holds are not part of it.
    """
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(getattr(function, "__func__", function))
    code = getattr(function, "__code__", None)
    if code is None:  # a builtin, or an object that can be called
        call = vars(type(function)).get("__call__")
        if inspect.isfunction(call):
            return code_digest(call)
        return _digest(
            f"name {getattr(function, '__module__', '')}.{getattr(function, '__qualname__', function)}"
        )
    tree = None if function.__name__ == "<lambda>" else _tree(function)
    if tree is None:
        return _digest(f"{sys.implementation.cache_tag} {_byte_code(code)}")
    return _digest(_text_of(tree))


def _tree(function: Callable[..., Any]) -> ast.AST | None:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, SyntaxError, TypeError, IndexError):
        return None
    if not isinstance(tree, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return None
    for each in ast.walk(tree):
        body = getattr(each, "body", None)
        if isinstance(body, list) and len(body) > 1 and _is_docstring(body[0]):
            del body[0]
    return tree


def _is_docstring(statement: ast.AST) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _text_of(part: Any) -> str:
    """A syntax tree as text. Not `ast.dump`, whose form differs between versions: no empty fields."""
    if isinstance(part, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(part) if value not in (None, []))
        return f"{type(part).__name__}({','.join(f'{name}={_text_of(value)}' for name, value in fields)})"
    if isinstance(part, list):
        return f"[{','.join(map(_text_of, part))}]"
    return repr(part)


def _byte_code(code: Any) -> str:
    constants = [_byte_code(each) if hasattr(each, "co_code") else repr(each) for each in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
