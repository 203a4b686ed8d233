"""Flows: nodes joined by actions, run once. (`batch_flow`: once for each set of parameters.)

A flow takes its start node, runs it, looks up the action that `post` returned among the node's successors,
and goes on until there is none. Nothing suspends between one node's `post` and the next one's `prep`:
parallel branches hand values over through `shared` there.
"""

from __future__ import annotations

import warnings
from typing import Any

from asyncflow.engine.checks import check_concurrency
from asyncflow.engine.context import Run
from asyncflow.engine.failure import describe
from asyncflow.engine.on_error import OnError
from asyncflow.engine.stopping import Halted
from asyncflow.errors import ActionError, StepLimitError
from asyncflow.graph.async_node import AsyncNode
from asyncflow.graph.base import BaseNode, label, outside, set_given, step_copy
from asyncflow.graph.reach import check_start, ids, reachable, refuse_circle


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
