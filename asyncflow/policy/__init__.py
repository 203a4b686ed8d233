"""Pure rules: how long to wait, whether to try again, what a limit should be now.

Nothing here runs an item. The engine and the clients ask, the rules answer. What has to wait (`lane`,
`budget`) waits in one place, `line`.
"""

from asyncflow.policy.budget import Budget, BudgetStatistics
from asyncflow.policy.lane import RateLane
from asyncflow.policy.limits import Limits
from asyncflow.policy.retry import Retry
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
