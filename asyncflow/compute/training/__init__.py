"""Training: one step (`steps`), epochs and resuming (`trainer`), the file (`checkpoint`)."""

from asyncflow.compute.training.metrics import accuracy
from asyncflow.compute.training.trainer import EpochRecord, Trainer

__all__ = ["EpochRecord", "Trainer", "accuracy"]
