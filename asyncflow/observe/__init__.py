"""Listeners: what shows people, logs and metrics what a run is doing. They know events and nothing else."""

from asyncflow.observe.progress import Progress

__all__ = ["Progress"]
