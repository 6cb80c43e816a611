"""`smp.model.DistributedModel`, the path that the Hugging Face Trainer imports."""

from trainyard_parallel.model import DistributedModel

__all__ = ["DistributedModel"]
