"""Training: one step (`steps`), epochs and resuming (`trainer`), the file (`checkpoint`)."""

from asyncflow.compute.training.trainer import EpochRecord, Trainer, accuracy

__all__ = ["EpochRecord", "Trainer", "accuracy"]
