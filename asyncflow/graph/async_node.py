"""`AsyncNode`: a node whose parts are coroutines, or plain functions, each as its class writes it."""

from __future__ import annotations

import inspect
from asyncio import CancelledError
from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar

from asyncflow.engine.context import Run
from asyncflow.engine.doors import opened
from asyncflow.engine.failure import cancelled_error, describe, explain
from asyncflow.engine.hosts import running_host
from asyncflow.engine.single import run_one
from asyncflow.engine.step import Mode, Step
from asyncflow.graph.base import label, say_where
from asyncflow.graph.node import Node


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
    _plain_parts: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        parts = ("prep", "exec", "post", "exec_fallback")
        cls._plain_parts = frozenset(part for part in parts if _written_plainly(cls, part))

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
        self._warn_alone("AsyncFlow")
        host = running_host()
        async with opened(host, label(self)) as run:
            return await self._run_step(shared, run.inside(label(self)))

    def run(self, shared: Any) -> Any:
        raise RuntimeError(
            f"Use run_async: {label(self)} is asynchronous. From synchronous code: "
            "asyncflow.run_sync(flow, shared)."
        )

    async def _run_step(self, shared: Any, run: Run) -> Any:
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
        if "prep" in self._plain_parts:
            return self._call_plain_prep(shared)
        try:
            value = self.prep_async(shared)
            try:
                return await value
            except TypeError:
                _refuse_unawaitable(self, "prep_async", value)
                raise
        except Exception as exc:
            say_where(exc, self, "prep")
            raise

    async def _call_post(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
        if "post" in self._plain_parts:
            return self._call_plain_post(shared, prep_res, exec_res)
        try:
            value = self.post_async(shared, prep_res, exec_res)
            try:
                return await value
            except TypeError:
                _refuse_unawaitable(self, "post_async", value)
                raise
        except Exception as exc:
            say_where(exc, self, "post")
            raise

    async def _exec(self, shared: Any, prep_res: Any, run: Run) -> Any:
        if (
            not self._is_bare(run)
            or self._has_timeout()
            or not self._plain_parts.isdisjoint(("exec", "exec_fallback"))
        ):
            keep = self._error_policy().keep
            return await run_one(self._engine_step(run), prep_res, run, keep=keep)
        run.counts.started += 1
        try:
            try:
                value = self.exec_async(prep_res)
                try:
                    exec_res = await value
                except TypeError:
                    _refuse_unawaitable(self, "exec_async", value)
                    raise
            except Exception as exc:
                exec_res = await self._fall_back_async(prep_res, exc)
            except CancelledError as exc:
                if run.host.cancelled(exc):
                    raise
                exec_res = await self._fall_back_async(prep_res, cancelled_error(label(self), 0, exc))
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
            value = self.exec_fallback_async(prep_res, exc)
            try:
                return await value
            except TypeError:
                _refuse_unawaitable(self, "exec_fallback_async", value)
                raise

    def _engine_step(self, run: Run) -> Step:
        on_loop = "exec" not in self._plain_parts
        fallback: Callable[..., Any] | None = None
        mode = Mode.AWAIT if on_loop else Mode.THREAD
        if "exec_fallback" in self._plain_parts:
            fallback, fallback_mode = self._fall_back, Mode.INLINE if on_loop else Mode.THREAD
        else:
            fallback, fallback_mode = self._fall_back_async, Mode.AWAIT
        call = _awaitable(self, self.exec_async) if on_loop else self.exec
        return self._build_step(call, mode, fallback, fallback_mode)


def _refuse_unawaitable(node: AsyncNode, part: str, value: Any) -> None:
    """Awaiting what `part` returned was a TypeError: say so where the reason is that it cannot be awaited."""
    if inspect.isasyncgen(value):
        raise TypeError(
            f"{label(node)}: {part} has a `yield`, which makes it an async generator: put the `yield` into "
            f"a method of its own, and let {part} return what that gives"
        ) from None
    if not inspect.isawaitable(value):
        raise TypeError(
            f"{label(node)}: {part} returned {describe(value)} ({type(value).__name__}), which cannot be "
            f"awaited: write it as `async def {part}`"
        ) from None


def _awaitable(node: AsyncNode, exec_async: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`exec_async`, or, where it is no coroutine function, one that says so if it cannot be awaited."""
    if getattr(getattr(exec_async, "__code__", None), "co_flags", 0) & inspect.CO_COROUTINE:
        return exec_async

    @wraps(exec_async)
    async def call(item: Any) -> Any:
        value = exec_async(item)
        try:
            return await value
        except TypeError:
            _refuse_unawaitable(node, "exec_async", value)
            raise

    return call


def _written_plainly(cls: type, part: str) -> bool:
    for kind in cls.__mro__:
        if f"{part}_async" in kind.__dict__:
            return False
        if part in kind.__dict__:
            return True
    return False
