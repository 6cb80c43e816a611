"""`smp.patches.checkpoint`: the full names of the activation checkpointing calls."""

from trainyard_parallel.checkpointing import checkpoint, checkpoint_sequential, set_activation_checkpointing

__all__ = ["checkpoint", "checkpoint_sequential", "set_activation_checkpointing"]
