"""The calls of torch_xla.core.xla_model that data-parallel scripts for Trainium make."""

import torch
import torch.distributed as dist


def xla_device():
    return torch.device('cpu')


def get_ordinal():
    return dist.get_rank() if dist.is_initialized() else 0


def xrt_world_size():
    return dist.get_world_size() if dist.is_initialized() else 1


def is_master_ordinal():
    return get_ordinal() == 0


def mark_step():
    """There is no graph to run."""


def all_reduce(kind, tensor):
    assert kind == 'sum', kind
    dist.all_reduce(tensor)
    return tensor


def optimizer_step(optimizer):
    """As the real one: gradients are averaged over all ranks, then the optimizer steps."""
    for group in optimizer.param_groups:
        for parameter in group['params']:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= xrt_world_size()
    optimizer.step()
    mark_step()
