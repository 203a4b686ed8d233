"""Flows: nodes joined by actions, run once, or once for each set of parameters.

A flow takes its start node, runs it, looks up the action that `post` returned among the node's successors,
and goes on until there is none. Nothing suspends between one node's `post` and the next one's `prep`:
parallel branches hand values over through `shared` there.
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from typing import Any

from asyncflow.engine.cap import Cap
from asyncflow.engine.checks import check_concurrency
from asyncflow.engine.context import Run
from asyncflow.engine.failure import describe
from asyncflow.engine.items import collect
from asyncflow.engine.on_error import OnError
from asyncflow.engine.step import Step
from asyncflow.engine.stopping import Halted
from asyncflow.errors import ActionError, StepLimitError
from asyncflow.graph.async_node import AsyncNode
from asyncflow.graph.base import BaseNode, label, outside, refuse_waiting_source, set_given, step_copy
from asyncflow.graph.node import Node
from asyncflow.graph.reach import check_start, ids, reachable, refuse_circle
from asyncflow.graph.view import SharedView


class Flow(BaseNode):
    """Runs nodes from `start` on, along the actions that they return, on the calling thread.

    A flow is a node: it can be a step of another flow. Its action is that of its last node, unless its
    `post` says otherwise.

    Args:
        start: The first node.
        max_steps: Refuse to take more steps than this in one run: a loop that does not end is an error.
        offload: Run every plain `exec` beneath on worker threads.
        name, version: As on `Node`.

    Raises (when run):
        MissingStartError: If there is no start node.
        ActionError: If a `post` returned something that cannot name an action and a successor is looked up.
        StepLimitError: If `max_steps` is passed.

    Example:
        >>> from asyncflow.graph.node import Node
        >>> class Count(Node):
        ...     def post(self, shared, prep_res, exec_res):
        ...         shared["n"] = shared.get("n", 0) + 1
        ...         return "again" if shared["n"] < 3 else "done"
        >>> count = Count()
        >>> _ = count - "again" >> count
        >>> flow = Flow(start=count)
        >>> shared = {}
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")  # "done" leads nowhere: the flow ends
        ...     flow.run(shared), shared["n"]
        ('done', 3)
    """

    max_steps: int | None = None

    def __init__(
        self,
        start: BaseNode | None = None,
        *,
        max_steps: int | None = None,
        offload: bool | None = None,
        name: str | None = None,
        version: str | None = None,
        concurrency: int | None = None,
        on_error: str | int | float | None = None,
        limits: Any = None,
        retry: Any = None,
        timeout: Any = None,
        total_timeout: Any = None,
        isolate: Any = None,
    ) -> None:
        super().__init__()
        kind = type(self)
        if isolate is not None:
            raise TypeError(
                f"{kind.__name__}(isolate={isolate!r}): isolate belongs to AsyncParallelBatchFlow, whose "
                "runs share one shared at the same time"
            )
        for setting, given in (("retry", retry), ("timeout", timeout), ("total_timeout", total_timeout)):
            value = getattr(kind, setting, None) if given is None else given
            if value is not None:
                raise TypeError(
                    f"{kind.__name__}({setting}={value!r}): {setting} belongs to nodes, whose exec it "
                    "bounds; give it to the nodes of this flow"
                )
        self.start_node = start
        set_given(
            self,
            max_steps=max_steps,
            offload=offload,
            name=name,
            version=version,
            concurrency=concurrency,
            on_error=on_error,
            limits=limits,
        )
        self._error_policy()

    def _error_policy(self) -> OnError:
        where = label(self)
        if self.max_steps is not None and (
            isinstance(self.max_steps, bool) or not isinstance(self.max_steps, int) or self.max_steps < 1
        ):
            raise ValueError(f"{where}: max_steps={self.max_steps!r}: a whole number from 1, or None")
        check_concurrency(self.concurrency, f"{where}: concurrency")
        if self.limits is not None:
            raise ValueError(
                f"{where}: limits={self.limits!r}: a flow makes no calls; give limits to its nodes"
            )
        self._check_kind_of_flow(where)
        return OnError.of(self.on_error)

    def _check_kind_of_flow(self, where: str) -> None:
        for setting, value, usual in (
            ("concurrency", self.concurrency, 1),
            ("on_error", self.on_error, "raise"),
        ):
            if value != usual:
                raise ValueError(
                    f"{where}: {setting}={value!r}: a {type(self).__name__} runs its nodes once and in turn; "
                    f"{setting} belongs to batch nodes and batch flows"
                )

    def start(self, start: BaseNode) -> BaseNode:
        """Set the start node and return it, so that `flow.start(a) >> b` chains."""
        self.start_node = start
        return start

    def get_next_node(self, curr: BaseNode, action: Any) -> BaseNode | None:
        """The node that `action` leads to, or None at the end; warns where the action is not handled."""
        successors = curr.successors
        if not successors:
            return None
        try:
            name = action if isinstance(action, str) and action else None if action else "default"
        except Exception:  # an array, whose truth nobody knows
            name = None
        if name is None:
            raise ActionError(
                f"{label(curr)}: post returned {describe(action)} ({type(action).__name__}) as its action; "
                f'return one of {sorted(successors)} as a string, or None for "default"'
            )
        following = successors.get(name)
        if following is None:
            warnings.warn(
                f"Flow ends: '{name}' not found in {list(successors)} (returned by {label(curr)})",
                stacklevel=outside(),
            )
        return following

    def post(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
        """`exec_res` is the last node's action; by default it is the flow's too."""
        return exec_res

    async def _walk_nodes(self, shared: Any, params: dict[str, Any], run: Run) -> Any:
        """One run over the nodes. Returns the last action."""
        node = check_start(self)
        counts, limit, steps, stop = run.counts, self.max_steps, 0, run.stop
        places = None if run.tell is None and run.journal is None else _Places(self)
        while True:
            steps += 1
            if limit is not None and steps > limit:
                raise StepLimitError(
                    f"{label(self)} took {limit} steps without an end and was about to run {label(node)}: a "
                    "loop in it does not end; raise max_steps if that many are meant"
                )
            if stop is not None and stop.asked:
                raise Halted
            counts.steps += 1
            step = step_copy(node)
            step.set_params(params)
            inside = run if places is None else places.enter(node, run)
            action = await step._run_step(shared, inside)
            for place in inside.places if run.journal is not None else ():
                place.acted(action)
            if run.host.cancel_pending():
                await run.host.let_others_run()  # which raises it; nobody hears of a cancellation before
            following = self.get_next_node(step, action)
            if following is None:
                return action
            node = following

    async def _run_step(self, shared: Any, run: Run) -> Any:
        prep_res = self._call_plain_prep(shared)
        action = await self._exec(shared, prep_res, run.offloaded() if self.offload else run)
        return self._call_plain_post(shared, self._prep_res_for_post(prep_res), action)

    async def _exec(self, shared: Any, prep_res: Any, run: Run) -> Any:
        """What `post` receives."""
        try:
            return await self._walk_nodes(shared, dict(self.params), run)
        except RecursionError:
            refuse_circle(self)
            raise

    def _prep_res_for_post(self, prep_res: Any) -> Any:
        """What `post` receives as `prep_res`."""
        return prep_res

    def to_mermaid(self) -> str:
        """This flow as a Mermaid flow chart, nested flows as boxes."""
        from asyncflow.graph.draw import to_mermaid  # draw is built on flows

        return to_mermaid(self)


class _Places:
    """What one run of a flow calls its nodes, and how often it has come by each."""

    def __init__(self, flow: Flow) -> None:
        self._names = ids(reachable(flow))
        self._visits: dict[int, int] = {}

    def enter(self, node: BaseNode, run: Run) -> Run:
        visit = self._visits[id(node)] = self._visits.get(id(node), -1) + 1
        return run.inside(self._names.get(id(node)) or label(node), visit)


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


class AsyncFlow(Flow, AsyncNode):
    """As `Flow`, on the event loop: its nodes may be asynchronous, synchronous, or flows.

    Plain nodes run in place and hold the loop while they do; `offload=True` moves every plain `exec` beneath
    to worker threads.
    """

    async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
        """As `Flow.post`."""
        return exec_res

    async def _run_step(self, shared: Any, run: Run) -> Any:
        self._refuse_blocking(run)
        prep_res = await self._call_prep(shared)
        action = await self._exec(shared, prep_res, run.offloaded() if self.offload else run)
        return await self._call_post(shared, self._prep_res_for_post(prep_res), action)

    _exec = Flow._exec


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
