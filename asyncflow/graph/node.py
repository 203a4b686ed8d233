"""`Node`: prep reads, exec works, post writes and chooses the action.

This is PocketFlow's model. `exec` is the step: what is bounded, retried, timed out and offloaded. `prep` and
`post` run on the caller's thread, and only they see `shared`. State belongs to the item, never to the node:
each step runs on a shallow copy, and `cur_retry` is answered by the attempt that is running.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from asyncflow.engine.attempt import refuse_coroutine
from asyncflow.engine.checks import check_concurrency, check_limits, check_retry, check_seconds
from asyncflow.engine.context import Run
from asyncflow.engine.driver import BlockingHost, drive
from asyncflow.engine.failure import add_note, explain
from asyncflow.engine.on_error import RAISE, OnError
from asyncflow.engine.single import run_one
from asyncflow.engine.step import ONCE, Mode, Step
from asyncflow.events import LoopHeld
from asyncflow.graph.base import BaseNode, SetByInit, label, set_given
from asyncflow.policy.retry import Retry
from asyncflow.waiting import current

#: Seconds for which a plain step may hold the event loop before a warning names it.
HELD_TOO_LONG = 0.25


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
        limits: A `Limits` of `asyncflow.policy` that the attempts share with others; it needs an event loop.
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
    _error_policy_found: tuple[Any, OnError] = (None, RAISE)

    retry: Retry | None = None
    timeout: float | None = None
    total_timeout: float | None = None

    if not TYPE_CHECKING:  # which reads its type in `__init__`
        max_retries = SetByInit()

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
        self._error_policy()

    def _error_policy(self) -> OnError:
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
        if settings != self._error_policy_found[0]:
            try:
                self._error_policy_found = (settings, self._error_policy_anew())
            except (TypeError, ValueError) as exc:
                add_note(exc, f"asyncflow: a setting of {label(self)}")
                raise
        return self._error_policy_found[1]

    def _error_policy_anew(self) -> OnError:
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
        check_limits(self.limits)
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

    def _retry_rule(self) -> Retry:
        if self.retry is not None:
            return self.retry
        return ONCE if self.max_retries == 1 else Retry.constant(self.max_retries, self.wait)

    def _has_timeout(self) -> bool:
        return self.timeout is not None or self.total_timeout is not None

    def _runs_on_threads(self, run: Run) -> bool:
        """Whether a plain exec of this node runs on threads here."""
        if self.concurrency != 1:
            self._error_policy()  # it may have been set since, to what cannot be compared
            if self.concurrency > 1:
                return True
        return self.offload or run.offload or self._has_timeout() or self.limits is not None

    def _engine_step(self, run: Run) -> Step:
        """What the engine is to do with each item."""
        mode = Mode.THREAD if self._runs_on_threads(run) else Mode.INLINE
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
            retry=self._retry_rule(),
            timeout=check_seconds(self.timeout, "timeout"),
            total_timeout=check_seconds(self.total_timeout, "total_timeout"),
            owner=self,
            key=key if callable(key) else None,
            limits=self.limits,
            result_type=getattr(self, "result_type", None),
        )

    async def _run_step(self, shared: Any, run: Run) -> Any:
        host = run.host
        if host.blocking or self._runs_on_threads(run):
            prep_res = self._call_plain_prep(shared)
            exec_res = await self._exec(shared, prep_res, run)
            return self._call_plain_post(shared, prep_res, exec_res)
        began = host.now()
        prep_res = self._call_plain_prep(shared)
        exec_res = self._exec_in_place(shared, prep_res, run)
        action = self._call_plain_post(shared, prep_res, exec_res)
        if (held := host.now() - began) > run.counts.loop_lag:
            self._loop_held(held, run)
        return action

    async def _exec(self, shared: Any, prep_res: Any, run: Run) -> Any:
        """What `post` receives: one item through `exec`."""
        if not self._is_bare(run) or self._runs_on_threads(run):
            keep = self._error_policy().keep
            return await run_one(self._engine_step(run), prep_res, run, keep=keep)
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

    def _is_bare(self, run: Run) -> bool:
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
            run.tell(LoopHeld(run.path, run.host.now(), held, run.branches))
        code = getattr(self.exec, "__code__", None)  # the user's line is there: the loop called us
        warnings.warn_explicit(
            f"{label(self)} is a plain node on the event loop and has held the event loop for {held:.2f} "
            "seconds, during which nothing else ran there; offload=True runs its exec on a worker thread",
            RuntimeWarning,
            code.co_filename if code is not None else __file__,
            code.co_firstlineno if code is not None else 1,
        )
