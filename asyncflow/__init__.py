"""asyncflow: run the same step over many items."""

from asyncflow.api import amap, stream
from asyncflow.outcome import Failed, Ok, Skipped
from asyncflow.policy.retry import Retry

__all__ = ["Failed", "Ok", "Retry", "Skipped", "amap", "stream"]
