"""Optimizer-state sharding: each rank of a group updates one range of the parameters.

The parameters of one optimizer group, dtype and process group lie in one flat buffer, padded to equal ranges. The
optimizer sees one *virtual parameter* per buffer: this rank's range. After its step an all-gather restores the whole
buffer. Exact for optimizers that treat every element alike (SGD, Adam, AdamW…); not for those that use the norm of a
whole parameter (LAMB, LARS).
"""

import torch
import torch.distributed as dist
from torch import nn

from trainyard_parallel.state import state
from trainyard_parallel.tensor import is_scaled_batch


class FlatShard:
    """One buffer. `parameters` become views of it and keep their values."""

    def __init__(self, parameters, kind):
        self.parameters, self.kind, self.group = parameters, kind, state.group(kind)
        self.rank, ranks = state.rank(kind), state.size(kind)
        self.sizes = [parameter.numel() for parameter in parameters]
        self.range = -(-sum(self.sizes) // ranks)
        self.flat = torch.zeros(self.range * ranks, dtype=parameters[0].dtype, device=parameters[0].device)
        for parameter, view in zip(parameters, self.flat.split([*self.sizes, self.flat.numel() - sum(self.sizes)])):
            view.copy_(parameter.detach().reshape(-1))
            parameter.data = view.view(parameter.shape)
        self.virtual = nn.Parameter(self.flat.narrow(0, self.rank * self.range, self.range))

    def take_gradients(self):
        """The own range of the gradients; parameters without one count as zero, none at all gives None."""
        if all(parameter.grad is None for parameter in self.parameters):
            self.virtual.grad = None
            return
        start, end = self.rank * self.range, (self.rank + 1) * self.range
        gradient, at = torch.zeros_like(self.virtual), 0
        for parameter, size in zip(self.parameters, self.sizes):
            low, high = max(at, start), min(at + size, end)
            if low < high and parameter.grad is not None:
                gradient[low - start : high - start] = parameter.grad.reshape(-1)[low - at : high - at]
            at += size
        self.virtual.grad = gradient

    def restore(self):
        """Every rank gets the ranges that the others updated."""
        dist.all_gather(list(self.flat.split(self.range)), self.virtual.detach().clone(), group=self.group)
        self.virtual.grad = None


def flatten(optimizer):
    """Replaces the optimizer's parameters by virtual ones; returns the shards. States that exist are dropped."""
    shards = []
    for group in optimizer.param_groups:
        kinds = {}
        for parameter in group["params"]:
            kind = "rdp" if is_scaled_batch(parameter) else "dp"
            kinds.setdefault((kind, parameter.dtype), []).append(parameter)
        own = [FlatShard(parameters, kind) for (kind, _), parameters in kinds.items()]
        group["params"] = [shard.virtual for shard in own]
        shards += own
    optimizer.state.clear()
    return shards
