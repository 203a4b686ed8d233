"""The one door to worker threads.

A `ThreadPool` is a limit, not a set of threads: at most `limit` of its jobs run at once, on threads that
the whole process shares and that end soon after they have nothing to do. Because every call that offloads
has a pool of its own, work started from inside a job never waits for the pool that the job runs in. The
event loop's default executor is left alone: filling it would delay name lookups for the whole program.

A job runs in a copy of the context of whoever submitted it, so context variables (and NumPy's `errstate`,
which is one) read the same inside.

`one_blas_thread` keeps the BLAS library beneath NumPy from starting threads of its own next to ours, and
`cpu_count` says how many processors this process may really use.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

#: Seconds an idle thread waits for its next job before it ends.
IDLE_SECONDS = 1.0

_QUEUED, _RUNNING, _FINISHED, _WITHDRAWN = "queued", "running", "finished", "withdrawn"


class Job:
    """One call on its way through a pool.

    Attributes:
        value: What the call returned, once `finished`.
        error: What it raised, or None. Anything: KeyboardInterrupt and SystemExit too.
        queued: Whether it had to wait for its turn.
    """

    __slots__ = (
        "_args",
        "_context",
        "_done",
        "_fn",
        "_pool",
        "_started",
        "error",
        "queued",
        "state",
        "value",
    )

    def __init__(
        self,
        pool: ThreadPool,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        done: Callable[[Job], None] | None,
        started: Callable[[], None] | None,
        context: contextvars.Context,
    ) -> None:
        self._pool = pool
        self._fn = fn
        self._args = args
        self._done = done
        self._started = started
        self._context = context
        self.queued = False
        self.state = _QUEUED
        self.value: Any = None
        self.error: BaseException | None = None

    @property
    def finished(self) -> bool:
        """Whether the call has returned or raised."""
        return self.state == _FINISHED

    def withdraw(self) -> bool:
        """Take the job back if it has not started. Returns whether it will never run."""
        return self._pool._withdraw(self)

    def _run(self) -> None:
        try:
            if self.queued and self._started is not None:
                self._started()
            self.value = self._context.run(self._fn, *self._args)
        except BaseException as exc:
            self.error = exc
        # What the call needed is not kept for as long as somebody keeps the job.
        del self._fn, self._args, self._started, self._context


@dataclass(frozen=True, slots=True)
class ThreadStatistics:
    """What a pool is doing at one moment: all counts are of jobs."""

    limit: int
    running: int
    queued: int


class ThreadPool:
    """At most `limit` jobs at once, first come first served.

    Args:
        limit: Jobs that may run at the same time, at least 1. `grow` raises it.

    A job that nobody waits for any longer (a timeout gave it up) still counts until it ends: a thread
    cannot be stopped, and pretending otherwise would let them pile up.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running = 0
        self._queue: deque[Job] = deque()
        self._lock = threading.Lock()

    def submit(
        self,
        fn: Callable[..., Any],
        *args: Any,
        done: Callable[[Job], None] | None = None,
        started: Callable[[], None] | None = None,
    ) -> Job:
        """Queue `fn(*args)`; `done(job)` is called on the worker's thread once it has finished.

        `started()` is called there when a job that had to queue begins. Neither may raise or block: they
        are the messengers, not the message.
        """
        job = Job(self, fn, args, done, started, contextvars.copy_context())
        with self._lock:
            if self._running >= self._limit:
                job.queued = True
                self._queue.append(job)
                return job
            self._running += 1
            job.state = _RUNNING
        _hand_over(job)
        return job

    def grow(self, limit: int) -> None:
        """Raise the limit to `limit`; a smaller value changes nothing."""
        started = []
        with self._lock:
            self._limit = max(self._limit, limit)
            while self._queue and self._running < self._limit:
                job = self._queue.popleft()
                job.state = _RUNNING
                self._running += 1
                started.append(job)
        for job in started:
            _hand_over(job)

    def statistics(self) -> ThreadStatistics:
        """What the pool is doing now."""
        with self._lock:
            return ThreadStatistics(self._limit, self._running, len(self._queue))

    def __repr__(self) -> str:
        now = self.statistics()
        return f"<ThreadPool limit={now.limit} running={now.running} queued={now.queued}>"

    def _withdraw(self, job: Job) -> bool:
        with self._lock:
            if job.state == _QUEUED:
                self._queue.remove(job)
                job.state = _WITHDRAWN
            return job.state == _WITHDRAWN

    def _finished(self, job: Job) -> Job | None:
        """Mark `job` finished and return the job that takes its place, on the same thread."""
        with self._lock:
            job.state = _FINISHED
            if self._queue:
                following = self._queue.popleft()
                following.state = _RUNNING
            else:
                following = None
                self._running -= 1
        if job._done is not None:
            job._done(job)
        return following


class _Worker:
    """A thread that runs one job after the other, and waits a little for the next."""

    __slots__ = ("inbox",)

    def __init__(self) -> None:
        self.inbox: SimpleQueue[Job] = SimpleQueue()

    def run(self) -> None:
        while True:
            try:
                job: Job | None = self.inbox.get(timeout=IDLE_SECONDS)
            except Empty:
                with _idle_lock:
                    if self in _idle:
                        _idle.remove(self)
                        return
                continue  # a job is on its way: whoever took this worker is about to put it
            while job is not None:
                job._run()
                job = job._pool._finished(job)
            with _idle_lock:
                _idle.append(self)


_idle: list[_Worker] = []
_idle_lock = threading.Lock()


def _hand_over(job: Job) -> None:
    with _idle_lock:
        worker = _idle.pop() if _idle else None
    if worker is None:
        worker = _Worker()
        threading.Thread(target=worker.run, name="asyncflow-worker", daemon=True).start()
    worker.inbox.put(job)


def cpu_count() -> int:
    """Processors this process may use: its affinity, and the quota of its Linux control group, at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return max(1, count)
    return max(1, count if quota == "max" else min(count, -(-int(quota) // int(period))))


class _Blas:
    """The BLAS libraries that are loaded, and how many of our calls want them to keep one thread.

    There are two kinds. OpenBLAS with its own threads (NumPy's wheels) has one limit for the process: the
    first of our calls sets it and the last one puts it back, whichever thread each is on. The others
    (OpenMP, MKL) have a limit per thread: every call sets and restores its own.
    """

    def __init__(self) -> None:
        from threadpoolctl import ThreadpoolController

        found = [lib for lib in ThreadpoolController().lib_controllers if lib.user_api == "blas"]
        self.shared = [lib for lib in found if _process_wide(lib)]
        self.own = [lib for lib in found if not _process_wide(lib)]
        self.holders = 0
        self.before: list[int] = []
        self.lock = threading.Lock()

    def enter(self) -> list[int]:
        with self.lock:
            self.holders += 1
            if self.holders == 1:
                self.before = [_set_blas(lib, 1) for lib in self.shared]
        return [_set_blas(lib, 1) for lib in self.own]

    def leave(self, own_before: list[int]) -> None:
        for lib, number in zip(self.own, own_before, strict=True):
            _set_blas(lib, number)
        with self.lock:
            self.holders -= 1
            if self.holders == 0:
                for lib, number in zip(self.shared, self.before, strict=True):
                    _set_blas(lib, number)


def _process_wide(lib: Any) -> bool:
    return lib.internal_api == "openblas" and getattr(lib, "threading_layer", "") != "openmp"


def _set_blas(lib: Any, number: int) -> int:
    """Set a library's limit and return the one it had."""
    before = int(lib.get_num_threads() or 1)
    if before != number:
        # threadpoolctl 3.8 lets only the first thread that asked change this limit, and ignores all others
        # silently; our calls come from many threads and count their holders, so the claim is dropped.
        release = getattr(lib, "clear_controlling_thread", None)
        if release is not None:
            release(force=True)
        lib.set_num_threads(number)
        if release is not None:
            release(force=True)
    return before


_blas: _Blas | None = None
_blas_lock = threading.Lock()
_depth = threading.local()


class one_blas_thread:
    """While any thread is inside, BLAS (the library beneath NumPy's matrix products) uses one thread.

    Two reasons: threads of ours and of BLAS would crowd each other out, and the bits of a product depend
    on how many threads BLAS splits it over. Costs about 5 microseconds, and half a microsecond inside
    another one on the same thread; the limit found at the first entry is back after the last exit. Where
    several threads of a process change the limit by other means at the same time, which value is left is
    not guaranteed: the libraries offer one number for all.
    """

    __slots__ = ("_before", "_held")

    def __enter__(self) -> None:
        depth = getattr(_depth, "count", 0)
        _depth.count = depth + 1
        self._held = None if depth else _loaded_blas()
        if self._held is not None:
            self._before = self._held.enter()

    def __exit__(self, *_: object) -> None:
        _depth.count = max(0, _depth.count - 1)  # 0 in a child forked inside
        if self._held is not None:
            self._held.leave(self._before)


def _loaded_blas() -> _Blas:
    global _blas
    if _blas is None:
        with _blas_lock:
            if _blas is None:
                _blas = _Blas()
    return _blas


def _after_fork() -> None:
    """The parent's threads do not exist in a forked child."""
    global _idle_lock, _blas_lock, _blas
    _depth.count = 0
    _idle.clear()
    _idle_lock = threading.Lock()
    _blas_lock = threading.Lock()
    if _blas is not None and _blas.holders:
        for lib, number in zip(_blas.shared, _blas.before, strict=True):
            _set_blas(lib, number)
    _blas = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
