"""What all modules with split weights share, and their weights as whole tensors."""

import torch
from torch import nn

from trainyard_parallel.exchange import ScaleGradient
from trainyard_parallel.state import state
from trainyard_parallel.tensor import movement


class DistributedModule(nn.Module):
    """Base class of modules whose weights are split over the tensor-parallel group.

    Make parameters with `split_parameter` and use them through `scaled`.
    """

    def split_parameter(self, whole, dim):
        """A parameter that holds this rank's part of `whole` along `dim`."""
        whole = whole.detach()
        parameter = nn.Parameter((movement.own_part(whole, dim) if state.size("tp") > 1 else whole).clone())
        parameter._smp_split = dim
        return parameter

    def scaled(self, parameter):
        """The split parameter for use in forward. Under sharded data parallelism, where gradients are averaged over the
        ranks that hold the same part, its gradient is divided here by the ranks whose samples it sums over."""
        cfg = state.cfg
        if cfg is None or cfg.sharded_data_parallel_degree == 1 or cfg.tensor_parallel_degree == 1 or cfg.prescaled_batch:
            return parameter
        return ScaleGradient.apply(parameter, 1 / cfg.tensor_parallel_degree)


def is_distributed(parameter):
    return hasattr(parameter, "_smp_split")


def is_scaled_batch(parameter):
    """Whether its local gradient already sums over the samples of the tensor-parallel group."""
    return hasattr(parameter, "_smp_split")


def splits(module):
    return {name: p._smp_split for name, p in module.named_parameters(remove_duplicate=False) if is_distributed(p)}


def gather_state(module, own):
    """Whole tensors in place of parts; every rank of the tensor-parallel group must call it."""
    at = splits(module)
    if state.size("tp") == 1 or not at:
        return own
    with torch.no_grad():
        return {name: movement.all_gather(value, at[name]) if name in at else value for name, value in own.items()}


def cut_state(module, whole):
    at = splits(module)
    if state.size("tp") == 1:
        return whole
    return {name: movement.own_part(value, at[name]) if name in at else value for name, value in whole.items()}
