"""Pure rules: how long to wait, whether to try again, what a limit should be now.

Nothing here runs an item. The engine asks, the rules answer.
"""

from asyncflow.policy.retry import Retry

__all__ = ["Retry"]
