"""Batch flows: the nodes of a flow, run once for each set of parameters, in turn or at the same time."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from typing import Any

from asyncflow.engine.cap import Cap
from asyncflow.engine.context import Run
from asyncflow.engine.failure import describe
from asyncflow.engine.items import collect
from asyncflow.engine.step import Step
from asyncflow.graph.async_node import AsyncNode
from asyncflow.graph.base import BaseNode, label, refuse_waiting_source, set_given
from asyncflow.graph.flow import AsyncFlow, Flow
from asyncflow.graph.node import Node
from asyncflow.graph.reach import reachable, refuse_circle
from asyncflow.graph.view import SharedView


class BatchFlow(Flow):
    """Runs its nodes once for each set of parameters that `prep` returns, one run after the other.

    Each run's nodes see the flow's own `params` with the set merged over it; `shared` is one for all. `post`
    gets None, or, with `on_error` other than "raise", one entry per run: its action, or a `Failed`.

    Example:
        >>> from asyncflow.graph.node import Node
        >>> class Add(Node):
        ...     def post(self, shared, prep_res, exec_res):
        ...         shared["sum"] += self.params["number"]
        >>> class AddAll(BatchFlow):
        ...     def prep(self, shared):
        ...         return [{"number": n} for n in range(4)]
        >>> shared = {"sum": 0}
        >>> AddAll(start=Add()).run(shared)
        >>> shared["sum"]
        6
    """

    def _check_kind_of_flow(self, where: str) -> None:
        if self.concurrency > 1 and not isinstance(self, AsyncNode):
            raise ValueError(
                f"{where}: concurrency={self.concurrency!r}: a BatchFlow runs in turn; for runs at the same "
                "time use AsyncParallelBatchFlow"
            )

    isolate: bool = False

    async def _exec(self, shared: Any, prep_res: Any, run: Run) -> Any:
        where, policy = label(self), self._error_policy()
        sets = self._parameter_sets(shared, prep_res)
        refuse_waiting_source(self, sets, run)
        place = (
            None
            if run.journal is None
            else run.journal.place(run.trail, run.visit, run.host, key=None, result_type=None)
        )

        async def one_run(given: Any) -> Any:
            if not isinstance(given, Mapping):
                raise TypeError(
                    f"{where}: prep returned {describe(given)} ({type(given).__name__}) among the parameter "
                    'sets: each is a dict, such as {"file": "a.csv"}'
                )
            seen = SharedView(shared) if self.isolate else shared
            inside = run.branch(None if place is None else place.key_of(given).hex())
            try:
                action = await walk(seen, {**self.params, **given}, inside)
            except RecursionError:
                refuse_circle(self)
                raise
            return seen if self.isolate else action

        walk: Callable[[Any, dict[str, Any], Run], Awaitable[Any]] = self._walk_nodes
        if run.alone is not None and _has_nodes_in_place(self, run):
            walk = self._one_after_the_other(run)
        step = Step(call=one_run, name=where, exec=False, atomic=not isinstance(self, AsyncNode))
        entries = await collect(step, sets, run, concurrency=self.concurrency, on_error=policy)
        return entries if self.isolate or policy.keep else None

    def _parameter_sets(self, shared: Any, prep_res: Any) -> Any:
        """What `prep` returned, if it can be one run's parameters after the other."""
        sets = self._prep_res_for_post(prep_res)
        if isinstance(sets, (str, Mapping)) or not isinstance(sets, (Iterable, AsyncIterable)):
            raise TypeError(
                f"{label(self)}: prep returned {describe(sets)} ({type(sets).__name__}): a batch flow's prep "
                "returns a list of parameter dicts, one for each run"
            )
        if self.isolate and not isinstance(shared, Mapping):
            raise TypeError(
                f"{label(self)}: isolate=True gives each run a view of shared, which has to be a dict then, "
                f"not {type(shared).__name__}"
            )
        return sets

    def _one_after_the_other(self, run: Run) -> Callable[[Any, dict[str, Any], Run], Awaitable[Any]]:
        """As `_walk_nodes`, while items are under suspicion: a plain node in place cannot wait for its turn,
        which would tear its prep, exec and post apart, so the others wait before they begin."""
        turn = Cap(run.host, 1)

        async def walk(shared: Any, params: dict[str, Any], inside: Run) -> Any:
            await turn.acquire()
            try:
                if run.journal is not None and run.journal.suspects:
                    return await self._walk_nodes(shared, params, inside)
            finally:
                turn.release()
            return await self._walk_nodes(shared, params, inside)

        return walk

    def _prep_res_for_post(self, prep_res: Any) -> Any:
        return [] if prep_res is None else prep_res

    def post(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
        """`exec_res`: see the class. Default: the action is "default"."""


def _has_nodes_in_place(flow: Flow, run: Run) -> bool:
    """Whether plain nodes beneath run in place: on the loop's thread, and without waiting for anybody."""
    todo: list[tuple[BaseNode, Run]] = [(flow, run)]
    seen: set[int] = set()
    for around, above in todo:
        run = above.offloaded() if around.offload else above
        for node in reachable(around):
            if isinstance(node, Flow) and id(node) not in seen:
                seen.add(id(node))
                todo.append((node, run))
            elif (
                isinstance(node, Node) and not isinstance(node, AsyncNode) and not node._runs_on_threads(run)
            ):
                return True
    return False


class AsyncBatchFlow(AsyncFlow, BatchFlow):
    """As `BatchFlow`, on the event loop: one run after the other, unless `concurrency` says more."""

    _exec = BatchFlow._exec

    async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
        """As `BatchFlow.post`."""


class AsyncParallelBatchFlow(AsyncBatchFlow):
    """As `AsyncBatchFlow`, with up to 64 runs at the same time, or as many as `concurrency` says.

    All runs share one `shared`. With `isolate=True` each run gets a private view of it instead: reads fall
    through, writes stay, and `post` receives the list of views, in the order of the sets.

    Args:
        isolate: See above.
        concurrency: Runs at the same time. A run holds no slot: only running `exec`s count against a cap.
        Others as on `Flow` and `BatchFlow`.
    """

    concurrency = 64

    def __init__(
        self, start: BaseNode | None = None, *, isolate: bool | None = None, **settings: Any
    ) -> None:
        super().__init__(start, **settings)
        set_given(self, isolate=isolate)
