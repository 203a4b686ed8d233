"""Pure rules: how long to wait, whether to try again, what a limit should be now.

Nothing here runs an item. The engine and the clients ask, the rules answer. What has to wait (`lane`,
`budget`) waits in one place, `line`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from asyncflow.policy.retry import Retry

if TYPE_CHECKING:
    from asyncflow.policy.budget import Budget, BudgetStatistics
    from asyncflow.policy.lane import RateLane
    from asyncflow.policy.limits import Limits
    from asyncflow.policy.settings import LaneSettings
    from asyncflow.policy.status import LaneStatistics
    from asyncflow.policy.tokens import TokenEstimate

__all__ = [
    "Budget",
    "BudgetStatistics",
    "LaneSettings",
    "LaneStatistics",
    "Limits",
    "RateLane",
    "Retry",
    "TokenEstimate",
]

#: Loaded when first asked for: `import asyncflow` needs `Retry` and no more.
_WHERE = {
    "Budget": "budget",
    "BudgetStatistics": "budget",
    "LaneSettings": "settings",
    "LaneStatistics": "status",
    "Limits": "limits",
    "RateLane": "lane",
    "TokenEstimate": "tokens",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
