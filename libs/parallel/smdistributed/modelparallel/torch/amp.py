"""`smp.amp`."""

from trainyard_parallel.precision import GradScaler

__all__ = ["GradScaler"]
