"""What every node and flow is: parameters, successors, prep, exec and post."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import AsyncIterable, Iterable
from types import CoroutineType
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import ref

from asyncflow.engine.context import Run
from asyncflow.engine.driver import BlockingHost, drive
from asyncflow.engine.failure import add_note
from asyncflow.errors import CoroutineReturnedError


class SetByInit:
    """Stands in the class for an attribute that `__init__` sets: found only where that was not called.

    A `__getattr__` would say the same, and make every look at an attribute of a node slower: a step took half
    as long again.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, node: BaseNode | None, kind: type) -> Any:
        if node is None:
            return self
        raise AttributeError(
            f"{kind.__name__!r} object has no attribute {self._name!r}: its __init__ has to call "
            "super().__init__()",
            name=self._name,
            obj=node,
        )


class BaseNode:
    """What nodes and flows have in common: parameters, and where each action leads.

    On its own it is prep, exec and post without attempts, on the calling thread.

    Attributes:
        params: What an enclosing batch flow gives this run, merged from the outermost to the innermost.
        successors: Action -> node.
    """

    _plain_copy: ClassVar[bool] = True

    name: str | None = None
    version: str | None = None
    offload: bool = False
    concurrency: int = 1
    on_error: str | int | float = "raise"
    limits: Any = None

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self.successors: dict[str, BaseNode] = {}
        _warn_of_parts_never_called(type(self))

    if not TYPE_CHECKING:  # which reads its type in `__init__`
        successors = SetByInit()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.__module__.startswith("asyncflow."):
            _refuse_taken_names(cls)
        own = ("__copy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__slots__")
        cls._plain_copy = not any(
            name in kind.__dict__ for kind in cls.__mro__ if kind is not object for name in own
        )

    # The graph.

    def set_params(self, params: dict[str, Any]) -> None:
        """Set the parameters; a flow does that for its nodes."""
        self.params = params

    def next(self, node: BaseNode, action: str = "default") -> BaseNode:
        """Go to `node` after `action`. Returns `node`, so that calls chain."""
        if not isinstance(node, BaseNode):
            raise TypeError(
                f"{label(self)} - {action!r} >> {node!r}: the target is a {type(node).__name__}, not a node "
                "or flow" + ("; make an instance of it" if isinstance(node, type) else "")
            )
        if action in self.successors:
            warnings.warn(f"Overwriting successor for action '{action}'", stacklevel=outside())
        self.successors[action] = node
        node.__dict__.setdefault("_led_here_by", _Sources()).add(self)
        return node

    def predecessors(self) -> list[BaseNode]:
        """Nodes from which something leads here, whether or not they are part of a flow.

        Pickled and deeply copied nodes have forgotten them.
        """
        sources = self.__dict__.get("_led_here_by", _Sources()).alive()
        return [node for node in sources if any(self is target for target in node.successors.values())]

    def __rshift__(self, other: BaseNode) -> BaseNode:
        return self.next(other)

    def __sub__(self, action: str) -> Transition:
        if isinstance(action, str):
            return Transition(self, action)
        raise TypeError(
            f"{label(self)} - {action!r}: an action is a string, such as {label(self)} - 'retry' >> node"
        )

    # The three parts.

    def prep(self, shared: Any) -> Any:
        """Read what `exec` needs. Default: nothing."""

    def exec(self, prep_res: Any) -> Any:
        """Do the work, on what `prep` returned and nothing else. Default: nothing."""

    def post(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
        """Write the result and return the action; None means "default"."""

    # Running it.

    def run(self, shared: Any) -> Any:
        """Run this node alone, without an event loop, and return its action.

        Blocks the calling thread. Works inside a running event loop too (a notebook), which it then blocks.
        """
        self._warn_alone("Flow")
        host = BlockingHost()
        return drive(host, self._run_step(shared, Run(host)))

    def _warn_alone(self, flow: str) -> None:
        if self.successors:
            warnings.warn(f"Node won't run successors. Use {flow}.", stacklevel=outside())

    async def _run_step(self, shared: Any, run: Run) -> Any:
        """prep, exec, post, in the run; returns the action."""
        prep_res = self._call_plain_prep(shared)
        exec_res = plain(self, "exec", self.exec(prep_res))
        return self._call_plain_post(shared, prep_res, exec_res)

    def _call_plain_prep(self, shared: Any) -> Any:
        try:
            value = self.prep(shared)
            return value if type(value) is not CoroutineType else plain(self, "prep", value)
        except Exception as exc:
            say_where(exc, self, "prep")
            raise

    def _call_plain_post(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
        try:
            value = self.post(shared, prep_res, exec_res)
            return value if type(value) is not CoroutineType else plain(self, "post", value)
        except Exception as exc:
            say_where(exc, self, "post")
            raise

    def __repr__(self) -> str:
        actions = ", ".join(f"{action!r} -> {label(node)}" for action, node in self.successors.items())
        return f"<{label(self)}{': ' + actions if actions else ''}>"


class _Sources:
    """Weak references to nodes, by identity: a node may be unhashable, as a dataclass is.

    Copies and pickles of it are empty: what is copied along with a node is what it leads to.
    """

    def __init__(self) -> None:
        self._refs: list[ref[BaseNode]] = []

    def add(self, node: BaseNode) -> None:
        sources = self.alive()
        if not any(node is other for other in sources):
            self._refs = [ref(source) for source in (*sources, node)]

    def alive(self) -> list[BaseNode]:
        return [node for reference in self._refs if (node := reference()) is not None]

    def __reduce__(self) -> tuple[type[_Sources], tuple[()]]:
        return _Sources, ()


class Transition:
    """`node - "action"`, waiting for its `>> target`."""

    def __init__(self, source: BaseNode, action: str) -> None:
        self.source = source
        self.action = action

    def __rshift__(self, target: BaseNode) -> BaseNode:
        return self.source.next(target, self.action)


def _refuse_taken_names(cls: type[BaseNode]) -> None:
    """Refuse a class that would replace what the engine calls by chance or by knowledge of PocketFlow."""
    taken = {
        name
        for kind in cls.__mro__
        if kind.__module__.startswith("asyncflow.graph.")
        for name in kind.__dict__
        if name.startswith("_") and not name.startswith("__")
    }
    for name in cls.__dict__:
        if name in taken:
            raise TypeError(
                f"{cls.__name__} defines {name}, which asyncflow uses itself; call it something else"
            )
        if name in ("_run", "_run_async", "_orch", "_orch_async"):
            warnings.warn(
                f"{cls.__name__} defines {name}, which PocketFlow calls and asyncflow does not: it does not "
                "change how the node runs",
                stacklevel=outside(),
            )


def _warn_of_parts_never_called(cls: type[BaseNode]) -> None:
    """Say so where a synchronous class has async parts and none of the plain ones that would call them."""
    if hasattr(cls, "run_async"):
        return
    for part in ("prep", "exec", "post"):
        default = getattr(cls, part) in (getattr(BaseNode, part), None)
        if default and hasattr(cls, f"{part}_async"):
            warnings.warn(
                f"{cls.__name__} is synchronous, so its {part}_async is never called: derive it from the "
                f"async class (AsyncNode, AsyncBatchNode, …), or write {part}",
                stacklevel=outside(),
            )


# Small things that nodes and flows share.


def label(node: BaseNode) -> str:
    """What people call a node: its `name`, else its class's."""
    return node.name if isinstance(node.name, str) and node.name else type(node).__name__


def set_given(node: BaseNode, **settings: Any) -> None:
    """Set what was given; the rest stays with the class."""
    for name, value in settings.items():
        if value is not None:
            setattr(node, name, value)


def plain(node: BaseNode, part: str, value: Any) -> Any:
    """What a plain part returned, if it is no coroutine, which nobody would await."""
    if type(value) is CoroutineType:
        value.close()
        raise CoroutineReturnedError(
            f"{label(node)} is synchronous but returned a coroutine from {part} ({value.__qualname__}): "
            f"write it as `async def {part}_async` on an async class (AsyncNode, AsyncBatchNode, AsyncFlow "
            "and so on), or return the value itself"
        )
    return value


def say_where(error: Exception, node: BaseNode, part: str) -> None:
    """Note on an exception which part of which node has raised it, where no note of ours says more."""
    if not any(str(note).startswith("asyncflow: ") for note in getattr(error, "__notes__", ())):
        add_note(error, f"asyncflow: {label(node)}: raised by {part}")


def refuse_waiting_source(node: BaseNode, items: Any, run: Run) -> None:
    """Refuse an async iterable where nothing can be awaited: it would wait for ever."""
    if run.host.blocking and isinstance(items, AsyncIterable) and not isinstance(items, Iterable):
        raise TypeError(
            f"{label(node)}: prep returned {type(items).__name__}, which has to be awaited, and a "
            "synchronous node runs without an event loop; use the async class of the same kind, or a plain "
            "generator"
        )


def step_copy(node: BaseNode) -> BaseNode:
    """A shallow copy for one step, as `copy.copy` makes it, by the short way where that is the same."""
    if not node._plain_copy:
        return copy.copy(node)
    kind = type(node)
    new = kind.__new__(kind)
    new.__dict__.update(node.__dict__)
    return new


def outside() -> int:
    """The `stacklevel` at which a warning points at the user's line."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("asyncflow"):
        frame = frame.f_back
        level += 1
    return level
