"""`Node` and `AsyncNode`: prep reads, exec works, post writes and chooses the action.

This is PocketFlow's model. `exec` is the step: what is bounded, retried, timed out and offloaded. `prep` and
`post` run on the caller's thread, and only they see `shared`. State belongs to the item, never to the node:
each step runs on a shallow copy, and `cur_retry` is answered by the attempt that is running.
"""

from __future__ import annotations

import copy
import sys
import warnings
from asyncio import CancelledError
from collections.abc import AsyncIterable, Callable, Iterable
from types import CoroutineType
from typing import Any, ClassVar
from weakref import ref

from asyncflow.engine.attempt import refuse_coroutine, run_one
from asyncflow.engine.checks import check_concurrency, check_retry, check_seconds, refuse
from asyncflow.engine.context import Run
from asyncflow.engine.doors import opened
from asyncflow.engine.driver import BlockingHost, drive
from asyncflow.engine.failure import add_note, cancelled_error, explain
from asyncflow.engine.hosts import running_host
from asyncflow.engine.on_error import RAISE, OnError
from asyncflow.engine.step import ONCE, Mode, Step
from asyncflow.events import LoopHeld
from asyncflow.policy.retry import Retry
from asyncflow.waiting import current

#: Seconds for which a plain step may hold the event loop before a warning names it.
HELD_TOO_LONG = 0.25


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
        self._alone("Flow")
        host = BlockingHost()
        return drive(host, self._step(shared, Run(host)))

    def _alone(self, flow: str) -> None:
        if self.successors:
            warnings.warn(f"Node won't run successors. Use {flow}.", stacklevel=outside())

    async def _step(self, shared: Any, run: Run) -> Any:
        """prep, exec, post, in the run; returns the action."""
        prep_res = plain(self, self.prep(shared))
        exec_res = plain(self, self.exec(prep_res))
        return plain(self, self.post(shared, prep_res, exec_res))

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


class Node(BaseNode):
    """One synchronous step.

    In a `Flow` it runs on the calling thread. In an `AsyncFlow` too, and its prep, exec and post are one
    atomic piece there, as in PocketFlow; `offload=True` moves `exec` to a worker thread, and so does a
    timeout, since only a thread can be given up.

    Args:
        max_retries: Attempts in all, the first included, for any Exception.
        wait: Seconds between two attempts.
        retry: A finer rule in their place: see `Retry`.
        timeout: Seconds for one attempt.
        total_timeout: Seconds for all attempts, the waits between them included.
        on_error: "raise", or "continue": `post` then receives a `Failed` where `exec` has failed for good.
        offload: Run `exec` on a worker thread.
        concurrency: Of batch nodes: how many items are at work at once.
        limits: Not in this version.
        name: What errors, events and drawings call it; the class's name by default.
        version: For runs that are stored: a new version means that old results no longer hold.

    The settings that are keywords only may be class attributes as well.

    Example:
        >>> class Greet(Node):
        ...     def prep(self, shared):
        ...         return shared["name"]
        ...     def exec(self, name):
        ...         return f"Hello, {name}"
        ...     def post(self, shared, prep_res, exec_res):
        ...         shared["greeting"] = exec_res
        >>> shared = {"name": "Ada"}
        >>> Greet().run(shared)
        >>> shared["greeting"]
        'Hello, Ada'
    """

    _cur_retry = 0
    #: The settings that were found right, and the error policy among them.
    _checked: tuple[Any, OnError] = (None, RAISE)

    retry: Retry | None = None
    timeout: float | None = None
    total_timeout: float | None = None

    def __init__(
        self,
        max_retries: int = 1,
        wait: float = 0,
        *,
        concurrency: int | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
        total_timeout: float | None = None,
        on_error: str | int | float | None = None,
        offload: bool | None = None,
        limits: Any = None,
        name: str | None = None,
        version: str | None = None,
    ) -> None:
        super().__init__()
        self.max_retries = max_retries
        self.wait = wait
        set_given(
            self,
            concurrency=concurrency,
            retry=retry,
            timeout=timeout,
            total_timeout=total_timeout,
            on_error=on_error,
            offload=offload,
            limits=limits,
            name=name,
            version=version,
        )
        self._check()

    def _check(self) -> OnError:
        """Check the settings, which may be class attributes or set later; returns the error policy.

        Raises:
            TypeError, ValueError: If one is wrong, with what to do about it.
        """
        settings = (
            self.max_retries,
            self.wait,
            self.retry,
            self.concurrency,
            self.timeout,
            self.total_timeout,
            self.limits,
            self.on_error,
        )
        if settings != self._checked[0]:
            try:
                self._checked = (settings, self._check_anew())
            except (TypeError, ValueError) as exc:
                add_note(exc, f"asyncflow: a setting of {label(self)}")
                raise
        return self._checked[1]

    def _check_anew(self) -> OnError:
        where = label(self)
        if isinstance(self.max_retries, bool) or not isinstance(self.max_retries, int):
            raise TypeError(f"{where}: max_retries={self.max_retries!r}: a whole number is needed")
        if self.max_retries < 1:
            raise ValueError(
                f"{where}: max_retries={self.max_retries!r}: it counts all attempts, the first included; use "
                "max_retries=1 for a single attempt without retries"
            )
        if isinstance(self.wait, bool) or not isinstance(self.wait, (int, float)) or not self.wait >= 0:
            raise ValueError(f"{where}: wait={self.wait!r}: a number of seconds from 0 is needed")
        if check_retry(self.retry) is not None and self.max_retries != 1:
            raise ValueError(f"{where}: give either max_retries={self.max_retries!r} or retry=, not both")
        check_concurrency(self.concurrency, f"{where}: concurrency")
        check_seconds(self.timeout, f"{where}: timeout")
        check_seconds(self.total_timeout, f"{where}: total_timeout")
        refuse(limits=self.limits)
        return OnError.of(self.on_error)

    def exec_fallback(self, prep_res: Any, exc: Exception) -> Any:
        """What stands in for the result after the last attempt. Default: raise `exc`."""
        raise exc

    @property
    def cur_retry(self) -> int:
        """Inside `exec` and `exec_fallback`: which attempt is running, from 0. It belongs to the item.

        Elsewhere it is 0, or what was assigned: programs for PocketFlow assign it in `__init__` and in tests.
        """
        waiter: Any = current.get()
        if getattr(waiter, "owner", None) is self:
            return int(waiter.attempt) - 1
        return self._cur_retry

    @cur_retry.setter
    def cur_retry(self, value: int) -> None:
        self._cur_retry = value

    def _rule(self) -> Retry:
        if self.retry is not None:
            return self.retry
        return ONCE if self.max_retries == 1 else Retry.constant(self.max_retries, self.wait)

    def _timed(self) -> bool:
        return self.timeout is not None or self.total_timeout is not None

    def _threaded(self, run: Run) -> bool:
        """Whether a plain exec of this node runs on threads here."""
        if self.concurrency != 1:
            self._check()  # it may have been set since, to what cannot be compared
            if self.concurrency > 1:
                return True
        return self.offload or run.offload or self._timed()

    def _described(self, run: Run) -> Step:
        """What the engine is to do with each item."""
        mode = Mode.THREAD if self._threaded(run) else Mode.INLINE
        # The default only raises. On threads it would queue behind the very job that a timeout gave up.
        own = type(self).exec_fallback is not Node.exec_fallback or "exec_fallback" in self.__dict__
        return self._build_step(self.exec, mode, self._fall_back if own else None, mode)

    def _fall_back(self, prep_res: Any, exc: Exception) -> Any:
        """`exec_fallback`, with `exc` as the exception in hand: `traceback.format_exc()` there shows it."""
        try:
            raise exc
        except Exception:
            return self.exec_fallback(prep_res, exc)

    def _build_step(
        self,
        call: Callable[[Any], Any],
        mode: Mode,
        fallback: Callable[[Any, Exception], Any] | None,
        fallback_mode: Mode,
    ) -> Step:
        key = getattr(self, "key", None)
        return Step(
            call=call,
            name=label(self),
            mode=mode,
            fallback=fallback,
            fallback_mode=fallback_mode,
            retry=self._rule(),
            timeout=check_seconds(self.timeout, "timeout"),
            total_timeout=check_seconds(self.total_timeout, "total_timeout"),
            owner=self,
            key=key if callable(key) else None,
        )

    async def _step(self, shared: Any, run: Run) -> Any:
        host = run.host
        if host.blocking or self._threaded(run):
            prep_res = plain(self, self.prep(shared))
            exec_res = await self._exec(shared, prep_res, run)
            return plain(self, self.post(shared, prep_res, exec_res))
        began = host.now()
        prep_res = plain(self, self.prep(shared))
        exec_res = self._exec_in_place(shared, prep_res, run)
        action = plain(self, self.post(shared, prep_res, exec_res))
        if (held := host.now() - began) > run.counts.loop_lag:
            self._loop_held(held, run)
        return action

    async def _exec(self, shared: Any, prep_res: Any, run: Run) -> Any:
        """What `post` receives: one item through `exec`."""
        if not self._bare(run) or self._threaded(run):
            keep = self._check().keep
            return await run_one(self._described(run), prep_res, run, keep=keep)
        # What most steps are: nothing to guard. The meaning of `run_one`, without a slot that nobody asks.
        run.counts.started += 1
        if self._cur_retry:
            self._cur_retry = 0
        try:
            try:
                exec_res = self.exec(prep_res)
                if type(exec_res) is CoroutineType:
                    refuse_coroutine(exec_res, label(self))
            except Exception as exc:
                exec_res = self.exec_fallback(prep_res, exc)
        except Exception as exc:
            run.counts.failed += 1
            explain(exc, label(self), 1)
            raise
        except BaseException:
            run.counts.cancelled += 1
            raise
        run.counts.succeeded += 1
        return exec_res

    def _bare(self, run: Run) -> bool:
        """Whether nothing but the call itself was asked for."""
        return (
            run.cap is None
            and run.tell is None
            and run.journal is None
            and self.max_retries == 1
            and self.retry is None
            and self.on_error == "raise"
            and self.limits is None
        )

    def _exec_in_place(self, shared: Any, prep_res: Any, run: Run) -> Any:
        """A plain exec on the event loop's thread: nothing else runs until it is done.

        PocketFlow's programs count on that. So it is driven as in a synchronous flow, retry waits included,
        and takes no slot under the run's cap: while it runs, no other exec does, and waiting for a slot
        would tear its prep, exec and post apart.
        """
        host = BlockingHost()
        return drive(host, self._exec(shared, prep_res, run.on(host)))

    def _loop_held(self, held: float, run: Run) -> None:
        run.counts.loop_lag = held
        if held <= HELD_TOO_LONG:
            return
        if run.tell is not None:
            run.tell(LoopHeld(run.path, run.host.now(), held))
        code = getattr(self.exec, "__code__", None)  # the user's line is there: the loop called us
        warnings.warn_explicit(
            f"{label(self)} is a plain node in an async flow and has held the event loop for {held:.2f} "
            "seconds, during which nothing else ran; offload=True runs its exec on a worker thread",
            RuntimeWarning,
            code.co_filename if code is not None else __file__,
            code.co_firstlineno if code is not None else 1,
        )


class AsyncNode(Node):
    """One asynchronous step: `prep_async`, `exec_async`, `post_async`, `exec_fallback_async`.

    Each may be written in its plain form instead; a plain `exec` then runs on a worker thread. Of the two
    forms the one in the most derived class counts, and of two in one class the async one.

    Example:
        >>> import asyncio
        >>> class Greet(AsyncNode):
        ...     async def exec_async(self, prep_res):
        ...         await asyncio.sleep(0)
        ...         return "Hello"
        ...     async def post_async(self, shared, prep_res, exec_res):
        ...         shared["greeting"] = exec_res
        >>> shared = {}
        >>> asyncio.run(Greet().run_async(shared))
        >>> shared
        {'greeting': 'Hello'}
    """

    #: Which of prep, exec, post and exec_fallback are written in their plain form.
    _plain: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        parts = ("prep", "exec", "post", "exec_fallback")
        cls._plain = frozenset(part for part in parts if _written_plainly(cls, part))

    async def prep_async(self, shared: Any) -> Any:
        """As `prep`."""

    async def exec_async(self, prep_res: Any) -> Any:
        """As `exec`."""

    async def exec_fallback_async(self, prep_res: Any, exc: Exception) -> Any:
        """As `exec_fallback`."""
        raise exc

    async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
        """As `post`."""

    async def run_async(self, shared: Any) -> Any:
        """Run this node alone and return its action. A cancel point."""
        self._alone("AsyncFlow")
        host = running_host()
        async with opened(host, label(self)) as run:
            return await self._step(shared, run.inside(label(self)))

    def run(self, shared: Any) -> Any:
        raise RuntimeError(
            f"Use run_async: {label(self)} is asynchronous. From synchronous code: "
            "asyncflow.run_sync(flow, shared)."
        )

    async def _step(self, shared: Any, run: Run) -> Any:
        self._refuse_blocking(run)
        prep_res = await self._call_prep(shared)
        exec_res = await self._exec(shared, prep_res, run)
        return await self._call_post(shared, prep_res, exec_res)

    def _refuse_blocking(self, run: Run) -> None:
        if run.host.blocking:
            raise RuntimeError(
                f"{label(self)} is asynchronous and cannot run in a synchronous flow. Use run_async on an "
                "AsyncFlow, or asyncflow.run_sync(flow, shared)."
            )

    async def _call_prep(self, shared: Any) -> Any:
        if "prep" in self._plain:
            return plain(self, self.prep(shared))
        return await self.prep_async(shared)

    async def _call_post(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
        if "post" in self._plain:
            return plain(self, self.post(shared, prep_res, exec_res))
        return await self.post_async(shared, prep_res, exec_res)

    async def _exec(self, shared: Any, prep_res: Any, run: Run) -> Any:
        if not self._bare(run) or self._timed() or not self._plain.isdisjoint(("exec", "exec_fallback")):
            keep = self._check().keep
            return await run_one(self._described(run), prep_res, run, keep=keep)
        run.counts.started += 1
        try:
            try:
                exec_res = await self.exec_async(prep_res)
            except Exception as exc:
                exec_res = await self.exec_fallback_async(prep_res, exc)
            except CancelledError as exc:
                if run.host.cancelled(exc):
                    raise
                exec_res = await self.exec_fallback_async(prep_res, cancelled_error(label(self), 0, exc))
        except Exception as exc:
            run.counts.failed += 1
            explain(exc, label(self), 1)
            raise
        except BaseException:
            run.counts.cancelled += 1
            raise
        run.counts.succeeded += 1
        return exec_res

    async def _fall_back_async(self, prep_res: Any, exc: Exception) -> Any:
        """As `_fall_back`."""
        try:
            raise exc
        except Exception:
            return await self.exec_fallback_async(prep_res, exc)

    def _described(self, run: Run) -> Step:
        on_loop = "exec" not in self._plain
        fallback: Callable[..., Any] | None = None
        mode = Mode.AWAIT if on_loop else Mode.THREAD
        if "exec_fallback" in self._plain:
            fallback, fallback_mode = self._fall_back, Mode.INLINE if on_loop else Mode.THREAD
        else:
            fallback, fallback_mode = self._fall_back_async, Mode.AWAIT
        call = self.exec_async if on_loop else self.exec
        return self._build_step(call, mode, fallback, fallback_mode)


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


def _written_plainly(cls: type, part: str) -> bool:
    for kind in cls.__mro__:
        if f"{part}_async" in kind.__dict__:
            return False
        if part in kind.__dict__:
            return True
    return False


# Small things that nodes and flows share.


def label(node: BaseNode) -> str:
    """What people call a node: its `name`, else its class's."""
    return node.name if isinstance(node.name, str) and node.name else type(node).__name__


def set_given(node: BaseNode, **settings: Any) -> None:
    """Set what was given; the rest stays with the class."""
    for name, value in settings.items():
        if value is not None:
            setattr(node, name, value)


def plain(node: BaseNode, value: Any) -> Any:
    """What a plain `prep` or `post` returned, if it is no coroutine."""
    if type(value) is CoroutineType:
        refuse_coroutine(value, label(node))
    return value


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
