"""Public fakes, for tests of your own flows: a simulated provider on loopback, a cache and a store in memory;
and the checks that a store of your own has to pass.

Nothing here needs pytest.
"""

from asyncflow.durability.memory import MemoryStore
from asyncflow.testing.asked import Asked
from asyncflow.testing.cache import MemoryCache
from asyncflow.testing.core import ProviderStatistics
from asyncflow.testing.faults import KINDS as FAULTS
from asyncflow.testing.provider import SimulatedProvider
from asyncflow.testing.standin import stand_in
from asyncflow.testing.stores import STORE_CHECKS

__all__ = [
    "FAULTS",
    "STORE_CHECKS",
    "Asked",
    "MemoryCache",
    "MemoryStore",
    "ProviderStatistics",
    "SimulatedProvider",
    "stand_in",
]
