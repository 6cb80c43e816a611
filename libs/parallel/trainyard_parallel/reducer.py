"""Gradients averaged over ranks that hold the same parameter, in flat buckets."""

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor


def reduce_gradients(parameters, group, divisor, bucket_bytes=25 * 2**20):
    """Sums each parameter's gradient over the group and divides by `divisor`, in place. Every member calls it.

    A parameter without gradient counts as zero where another rank has one, and keeps None where none has. Summation is
    in the gradient's own dtype, of a sharded gradient the own shard. One small collective tells which gradients exist, then one per bucket.
    """
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    if not parameters:
        return
    if dist.get_world_size(group) == 1:
        if divisor != 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.div_(divisor)
        return
    device = parameters[0].device
    exists = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.int32, device=device)
    dist.all_reduce(exists, op=dist.ReduceOp.MAX, group=group)
    used = [parameter for parameter, there in zip(parameters, exists.tolist()) if there]
    for bucket in buckets(used, bucket_bytes):
        gradients = [local(p.grad if p.grad is not None else torch.zeros_like(p)) for p in bucket]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        # The sum of FP16 gradients may overflow where their mean does not.
        early = flat.dtype == torch.float16
        if early:
            flat /= divisor
        dist.all_reduce(flat, group=group)
        if not early:
            flat /= divisor
        for parameter, part in zip(bucket, flat.split([g.numel() for g in gradients])):
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
            local(parameter.grad).copy_(part.view_as(local(parameter)))


def local(tensor):
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def buckets(parameters, limit):
    """Runs of one dtype whose gradients together stay below `limit` bytes (a larger parameter is its own bucket)."""
    current, size = [], 0
    for parameter in parameters:
        own = parameter.numel() * parameter.element_size()
        if current and (size + own > limit or current[0].dtype != parameter.dtype):
            yield current
            current, size = [], 0
        current.append(parameter)
        size += own
    if current:
        yield current
