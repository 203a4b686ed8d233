"""Flows and batch flows: what they accept, walk, isolate and bound."""

from __future__ import annotations

import pytest

from asyncflow import AsyncBatchFlow, AsyncFlow, AsyncParallelBatchFlow, BatchFlow, Flow, Retry

FLOWS = [Flow, BatchFlow, AsyncFlow, AsyncBatchFlow, AsyncParallelBatchFlow]


@pytest.mark.parametrize("kind", FLOWS)
@pytest.mark.parametrize(
    "settings", [{"retry": Retry()}, {"timeout": 5}, {"total_timeout": 5}], ids=lambda s: next(iter(s))
)
def test_what_belongs_to_nodes_is_refused_on_flows(kind, settings):
    """retry and timeouts bound an exec: a flow refuses them, as arguments and as class attributes."""
    [name] = settings
    with pytest.raises(TypeError, match=f"{name} belongs to nodes"):
        kind(**settings)
    with pytest.raises(TypeError, match=f"{name} belongs to nodes"):
        type("Own", (kind,), settings)()
