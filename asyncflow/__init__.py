"""asyncflow: run the same step over many items."""

from asyncflow.api.flows import RunResult, run, run_sync
from asyncflow.api.items import amap, stream
from asyncflow.engine.signals import stop_on_signals
from asyncflow.engine.stopping import Stop
from asyncflow.graph.async_node import AsyncNode
from asyncflow.graph.base import BaseNode
from asyncflow.graph.batch import AsyncBatchNode, AsyncParallelBatchNode, BatchNode
from asyncflow.graph.batch_flow import AsyncBatchFlow, AsyncParallelBatchFlow, BatchFlow
from asyncflow.graph.check import Problem, check
from asyncflow.graph.flow import AsyncFlow, Flow
from asyncflow.graph.node import Node
from asyncflow.outcome import Failed, Ok, Skipped
from asyncflow.policy.retry import Retry
from asyncflow.waiting import waiting

__all__ = [
    "AsyncBatchFlow",
    "AsyncBatchNode",
    "AsyncFlow",
    "AsyncNode",
    "AsyncParallelBatchFlow",
    "AsyncParallelBatchNode",
    "BaseNode",
    "BatchFlow",
    "BatchNode",
    "Failed",
    "Flow",
    "Node",
    "Ok",
    "Problem",
    "Retry",
    "RunResult",
    "Skipped",
    "Stop",
    "amap",
    "check",
    "run",
    "run_sync",
    "stop_on_signals",
    "stream",
    "waiting",
]


def __getattr__(name: str) -> str:
    """`__version__`, looked up when somebody asks: it lies in the installation's metadata."""
    if name == "__version__":
        from importlib.metadata import version

        return version("asyncflow-engine")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
