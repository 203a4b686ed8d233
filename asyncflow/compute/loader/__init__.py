"""Loading batches: what is read (`source`), in which order (`order`), one pass (`epoch`), the loader."""

from asyncflow.compute.loader.loader import DataLoader
from asyncflow.compute.loader.order import weighted_sampler

__all__ = ["DataLoader", "weighted_sampler"]
