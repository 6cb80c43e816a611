"""`torch.sagemaker.grad_norm.clip_grad_norm_`."""

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor


def clip_grad_norm_(model, max_norm):
    """Scales gradients so that their norm over all shards is at most `max_norm`; returns the norm before. Collective."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    totals = {}
    for gradient in gradients:
        if isinstance(gradient, DTensor) and any(placement.is_partial() for placement in gradient.placements):
            key, local = None, gradient.full_tensor()
        elif isinstance(gradient, DTensor):
            # Not `isinstance(…, Shard)`: FSDP over tensor parallelism has a kind of shard of its own.
            axes = tuple(d for d, placement in enumerate(gradient.placements) if not placement.is_replicate())
            key, local = (gradient.device_mesh, axes), gradient.to_local()
        else:
            key, local = None, gradient
        totals[key] = totals.get(key, 0) + local.double().square().sum()
    for key, total in totals.items():
        for axis in key[1] if key else ():
            dist.all_reduce(total, group=key[0].get_group(axis))
    norm = sum(totals.values()).sqrt() if totals else torch.zeros(())
    factor = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
    for gradient in gradients:
        (gradient.to_local() if isinstance(gradient, DTensor) else gradient).mul_(factor)
    return norm
