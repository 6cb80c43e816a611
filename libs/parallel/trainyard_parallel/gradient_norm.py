"""The norm of all gradients of the model, each counted once over stages, tensor-parallel parts and shards."""

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from trainyard_parallel.state import state
from trainyard_parallel.tensor import is_distributed


def local(tensor):
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def global_norm(model):
    """The 2-norm in float64, equal on every rank; inf if any gradient is not finite anywhere. Every rank must call it."""
    device = state.process.device
    # Sums of squares by where the other parts of a gradient are: [in shard groups][in tensor-parallel groups].
    squares = torch.zeros(2, 2, dtype=torch.float64, device=device)
    for parameter in model.local_parameters():
        if parameter.grad is not None and parameter not in model.counted_elsewhere:
            own = local(parameter.grad).double().square().sum()
            squares[int(isinstance(parameter.grad, DTensor)), int(is_distributed(parameter))] += own
    sum_over(squares[1], "sdp")
    total = squares.sum(0)
    sum_over(total[1], "tp")
    norm = total.sum()
    sum_over(norm, "pp")
    norm = norm.sqrt()
    norm = torch.where(norm.isfinite(), norm, float("inf"))
    dist.all_reduce(norm, op=dist.ReduceOp.MAX, group=state.group("world"))
    return norm


def sum_over(tensor, kind):
    if state.size(kind) > 1:
        dist.all_reduce(tensor, group=state.group(kind))


def factor_for(norm, max_norm):
    """What gradients of this norm are multiplied by so that it is at most `max_norm`."""
    return torch.clamp(max_norm / (norm + 1e-6), max=1.0)


@torch.no_grad()
def scale_gradients(model, factor):
    for parameter in model.local_parameters():
        if parameter.grad is not None:
            local(parameter.grad).mul_(factor.to(parameter.grad.dtype))
