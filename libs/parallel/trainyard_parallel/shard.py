"""Sharded data parallelism: parameters, gradients and optimizer state over shard groups smaller than the world.

FSDP2 on a 2-D mesh (replicas × shards). Each member of a ModuleList or Sequential is one unit of gathering, the rest
of the model another. Parameters below `sdp_param_persistence_threshold` elements stay whole and are averaged with the
unsharded ones. Gradients are reduced inside the shard group in every micro-batch (hop 1) and between replicas only at
the accumulation boundary (hop 2).
"""

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from trainyard_parallel import delayed
from trainyard_parallel.errors import SMPConfigError
from trainyard_parallel.shard_mesh import shard_mesh
from trainyard_parallel.state import state


def is_on():
    return state.cfg.sharded_data_parallel_degree > 1


def apply(model):
    """Shards the wrapped model in place; every rank must call it."""
    if not is_on():
        return
    module = model.module
    # One matrix of replicas × shards for each tensor-parallel rank; shard groups are runs of the reduced-data-parallel ones.
    ranks = torch.tensor(state.topology.groups["rdp"]).unflatten(1, (-1, state.cfg.sharded_data_parallel_degree))
    mesh = shard_mesh(DeviceMesh(state.process.device.type, ranks, mesh_dim_names=("tp", "replicate", "shard")))
    splits = {name: p._smp_split for name, p in module.named_parameters(remove_duplicate=False) if hasattr(p, "_smp_split")}
    limit = state.cfg.sdp_param_persistence_threshold
    whole = {parameter for parameter in module.parameters() if parameter.numel() < limit}
    dtypes = {parameter.dtype for parameter in module.parameters()}
    if len(dtypes) != 1:
        raise SMPConfigError(f"parameters have dtypes {sorted(map(str, dtypes))}; sharded data parallelism needs one dtype")
    dtype = dtypes.pop()
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=dtype)

    late = delayed.recorded_parameters(module)

    def has_sharded(part):
        return any(parameter not in whole for parameter in part.parameters())

    for part in units(module):
        if has_sharded(part):
            fully_shard(part, mesh=mesh, mp_policy=policy, ignored_params=whole)
    if has_sharded(module) and not isinstance(module, FSDPModule):
        fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=whole)
    # FSDP has made new parameters.
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if name in splits:
            parameter._smp_split = splits[name]
    delayed.fill_shards(module, late, copy)


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
