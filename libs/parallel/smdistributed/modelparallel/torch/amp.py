"""`smp.amp`."""

from trainyard_parallel.errors import absent

GradScaler = absent("smp.amp.GradScaler", "use torch.autocast with bfloat16, which needs no scaler")

__all__ = ["GradScaler"]
