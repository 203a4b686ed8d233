"""Public fakes, for tests of your own flows: a simulated provider on loopback.

Nothing here needs pytest.
"""

from asyncflow.testing.asked import Asked
from asyncflow.testing.provider import SimulatedProvider
from asyncflow.testing.standin import stand_in

__all__ = ["Asked", "SimulatedProvider", "stand_in"]
