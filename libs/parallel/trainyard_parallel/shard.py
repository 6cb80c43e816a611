"""Sharded data parallelism: parameters, gradients and optimizer state over shard groups smaller than the world.

FSDP2 on a 2-D mesh (replicas × shards). Each member of a ModuleList or Sequential is one unit of gathering, the rest
of the model another. Parameters below `sdp_param_persistence_threshold` elements stay whole and are averaged with the
unsharded ones. Gradients are reduced inside the shard group in every micro-batch (hop 1) and between replicas only at
the accumulation boundary (hop 2).
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from trainyard_parallel.errors import SMPConfigError
from trainyard_parallel.state import state


def is_on():
    return state.cfg.sharded_data_parallel_degree > 1


def apply(model):
    """Shards the wrapped model in place; every rank must call it."""
    if not is_on():
        return
    module = model.module
    if state.cfg.bf16:
        # As the original does: parameters, gradients and optimizer state are bfloat16; there is no loss scale.
        module.to(torch.bfloat16)
    # Replicas are runs of ranks, so the matrix of global ranks is the list of shard groups.
    mesh = DeviceMesh(
        state.process.device.type, torch.tensor(state.topology.groups["sdp"]), mesh_dim_names=("replicate", "shard")
    )
    limit = state.cfg.sdp_param_persistence_threshold
    whole = {parameter for parameter in module.parameters() if parameter.numel() < limit}
    dtypes = {parameter.dtype for parameter in module.parameters()}
    if len(dtypes) != 1:
        raise SMPConfigError(f"parameters have dtypes {sorted(map(str, dtypes))}; sharded data parallelism needs one dtype")
    dtype = dtypes.pop()
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=dtype)

    def has_sharded(part):
        return any(parameter not in whole for parameter in part.parameters())

    for part in units(module):
        if has_sharded(part):
            fully_shard(part, mesh=mesh, mp_policy=policy, ignored_params=whole)
    if has_sharded(module) and not isinstance(module, FSDPModule):
        fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=whole)


def units(module):
    """Members of the outermost lists of modules."""
    for child in module.children():
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and not isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from units(child)


def before_microbatch(model, is_last):
    """`is_last`: gradients of this micro-batch complete an accumulation, so replicas exchange theirs."""
    if is_on() and isinstance(model.module, FSDPModule):
        model.module.set_requires_all_reduce(is_last)


def is_sharded(tensor):
    return isinstance(tensor, DTensor)


def whole(tensor):
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def copy(target, value):
    """Writes a whole tensor into a parameter or buffer that may be sharded."""
    if is_sharded(target) and not is_sharded(value):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements, src_data_rank=None)
    target.copy_(value)


def clip(parameters, max_norm):
    """Scales gradients so that their global norm is at most `max_norm`; returns the norm before. Collective."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    device = state.process.device
    squares = [torch.zeros((), dtype=torch.float64, device=device) for _ in range(2)]
    for gradient in gradients:
        local = gradient.to_local() if is_sharded(gradient) else gradient
        squares[is_sharded(gradient)] += local.double().square().sum()
    dist.all_reduce(squares[True], group=state.group("sdp"))
    norm = (squares[0] + squares[1]).sqrt()
    factor = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
    for gradient in gradients:
        (gradient.to_local() if is_sharded(gradient) else gradient).mul_(factor.to(gradient.dtype))
    return norm
