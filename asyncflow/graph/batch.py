"""Batch nodes: `prep` returns items, `exec` takes one of them, `post` receives all results.

The three classes differ in their colour and in one number, `concurrency`.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any, ClassVar

from asyncflow.engine.context import Run
from asyncflow.engine.items import collect
from asyncflow.engine.reader import Stream
from asyncflow.engine.source import refuse_table
from asyncflow.graph.async_node import AsyncNode
from asyncflow.graph.base import label, plain, refuse_waiting_source, say_where
from asyncflow.graph.node import Node
from asyncflow.outcome import Ok

_POST_ITEM = frozenset(("post_item", "post_item_async"))
#: What `prep` usually returns: no need to ask what it can do.
_USUAL = (list, tuple, range)


class BatchNode(Node):
    """`exec` for each item that `prep` returned, one after the other; `post` gets the list of results.

    With `concurrency` above 1 the items run on that many worker threads, results still in input order.
    Anything that can be iterated will do as a source, and is pulled lazily; None means no items.

    A node that defines `post_item(shared, item, exec_res)` has it called once per item, in input order, as
    results come (with a `Failed` too, under `on_error="continue"`). Nothing is collected then, `post` gets
    None, and memory stays flat over any number of items.

    Example:
        >>> class Square(BatchNode):
        ...     def prep(self, shared):
        ...         return shared["numbers"]
        ...     def exec(self, number):
        ...         return number * number
        ...     def post(self, shared, prep_res, exec_res_list):
        ...         shared["squares"] = exec_res_list
        >>> shared = {"numbers": [1, 2, 3]}
        >>> Square().run(shared)
        >>> shared["squares"]
        [1, 4, 9]
    """

    #: Whether the class, or one above it, defines `post_item` in either form.
    _has_post_item: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._has_post_item = any(kind.__dict__.keys() & _POST_ITEM for kind in cls.__mro__)

    async def _exec(self, shared: Any, prep_res: Any, run: Run) -> Any:
        items = [] if prep_res is None else prep_res
        if type(items) not in _USUAL:
            self._check_items(items, run)
        policy, step = self._error_policy(), self._engine_step(run)
        receive = self._item_receiver(run)
        if receive is None:
            return await collect(step, items, run, concurrency=self.concurrency, on_error=policy)
        stream: Stream[Any] = Stream(
            step, items, concurrency=self.concurrency, on_error=policy, ordered=True, run=run
        )
        try:
            async for outcome in stream:
                value = outcome.value if isinstance(outcome, Ok) else outcome
                try:
                    result = receive(shared, outcome.item, value)
                    if inspect.isawaitable(result):
                        await (plain(self, "post_item", result) if run.host.blocking else result)
                except Exception as exc:
                    say_where(exc, self, f"post_item, at item {outcome.index}")
                    raise
        finally:
            await stream.aclose()
        return None

    def _check_items(self, items: Any, run: Run) -> None:
        if not isinstance(items, (Iterable, AsyncIterable)) and not hasattr(items, "__getitem__"):
            raise TypeError(
                f"{label(self)}: prep returned {type(items).__name__}, which cannot be iterated over: a "
                "batch node's prep returns its items (a list, a generator), or None for none"
            )
        refuse_table(items, f"{label(self)}: what prep returned")
        refuse_waiting_source(self, items, run)

    def _item_receiver(self, run: Run) -> Callable[[Any, Any, Any], Any] | None:
        """What takes the results one by one, if the node defines it: the form in the most derived class."""
        # Looked up where definitions are: a __getattr__ of the user's own does not define anything.
        if not self._has_post_item and not self.__dict__.keys() & _POST_ITEM:
            return None
        for home in (self.__dict__, *(kind.__dict__ for kind in type(self).__mro__)):
            if home.get("post_item_async") is not None:
                if run.host.blocking:
                    raise TypeError(
                        f"{label(self)}: post_item_async cannot be awaited in a synchronous node; "
                        "write post_item, or use AsyncBatchNode"
                    )
                return self.post_item_async  # type: ignore[attr-defined, no-any-return]
            if home.get("post_item") is not None:
                return self.post_item  # type: ignore[attr-defined, no-any-return]
        return None


class AsyncBatchNode(AsyncNode, BatchNode):
    """As `BatchNode`, in the async forms: one item after the other, unless `concurrency` says more."""

    _exec = BatchNode._exec


class AsyncParallelBatchNode(AsyncNode, BatchNode):
    """As `AsyncBatchNode`, with up to 64 items at work at once, or as many as `concurrency` says.

    Example:
        >>> import asyncio
        >>> class Double(AsyncParallelBatchNode):
        ...     async def prep_async(self, shared):
        ...         return range(3)
        ...     async def exec_async(self, number):
        ...         await asyncio.sleep(0)
        ...         return 2 * number
        ...     async def post_async(self, shared, prep_res, exec_res_list):
        ...         shared["doubles"] = exec_res_list
        >>> shared = {}
        >>> asyncio.run(Double(concurrency=2).run_async(shared))
        >>> shared["doubles"]
        [0, 2, 4]
    """

    concurrency = 64
    _exec = BatchNode._exec
