"""Hybrid sharding for v2: the constructor of FSDP1 over FSDP2, with shard groups of `hybrid_shard_degree` ranks.

torch.distributed.fsdp's own class, which refuses CPUs and does not know tensor-parallel groups, leads here after
`tsm.init()` (fsdp1.py), so scripts import either.
"""

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.sagemaker import fsdp1
from torch.sagemaker.delayed_param import agree_on_seed, materialize
from torch.sagemaker.moe.moe_layer import Experts
from torch.sagemaker.state_handler import state

from trainyard_parallel.errors import SMPConfigError, SMPRuntimeError, not_available
from trainyard_parallel.shard_mesh import shard_mesh

KEEP_GATHERED = ("SHARD_GRAD_OP", "_HYBRID_SHARD_ZERO2")


def FullyShardedDataParallel(
    module,
    process_group=None,
    sharding_strategy=None,
    cpu_offload=None,
    auto_wrap_policy=None,
    backward_prefetch=None,
    mixed_precision=None,
    ignored_modules=None,
    param_init_fn=None,
    device_id=None,
    sync_module_states=False,
    forward_prefetch=False,
    limit_all_gathers=True,
    use_orig_params=False,
    ignored_states=None,
    device_mesh=None,
    post_param_init_fn=None,
):
    """Shards the module in place and returns it; every rank calls it, before the optimizer is made.

    Shard groups are runs of data-parallel ranks (inside them, tensor-parallel ranks vary fastest); other ranks
    replicate. Modules that `auto_wrap_policy` names are gathered one by one. `sync_module_states` gives all ranks the
    values of the first rank of their data-parallel group. Spread experts are gathered one block at a time, over the
    ranks that hold the same ones. `device_id` is where a part goes before it is sharded. Prefetch arguments are
    accepted: FSDP2 decides itself.

    `param_init_fn(module)` gives a module on the meta device its own parameters, one wrapped part after the other, so a
    rank holds its shards and one whole part; `post_param_init_fn(module)` is called with the whole module at the end.
    Ranks may hold the model and others not, if `sync_module_states` is true.
    """
    if state.cfg is None:
        raise SMPRuntimeError("FSDP was made before tsm.init(); call tsm.init() first")
    absent = {
        "cpu_offload": cpu_offload and cpu_offload.offload_params,
        "ignored_modules": ignored_modules,
        "ignored_states": ignored_states,
    }
    for name, value in absent.items():
        if value:
            raise not_available(f"FSDP's {name}", "leave it out")
    if process_group is not None or device_mesh is not None:
        raise not_available("FSDP's process_group and device_mesh", "set hybrid_shard_degree")
    if param_init_fn is not None and not sync_module_states:
        agree_on_seed(param_init_fn)

    def ready(part):
        """Brings what of the part is not sharded yet into the memory that FSDP shards."""
        if param_init_fn is not None:
            materialize(part, param_init_fn)
        if part is module and post_param_init_fn is not None:
            post_param_init_fn(module)
        if device_id is not None:
            part.to(torch.device("cuda", device_id) if isinstance(device_id, int) else device_id)
        if sync_module_states:
            spread(part)

    dtypes = {parameter.dtype for parameter in module.parameters()}
    if len(dtypes) != 1:
        raise SMPConfigError(f"parameters have dtypes {sorted(map(str, dtypes))}; sharding needs one dtype")
    dtype = dtypes.pop()
    given = mixed_precision
    policy = MixedPrecisionPolicy(
        param_dtype=(given and given.param_dtype) or dtype, reduce_dtype=(given and given.reduce_dtype) or dtype
    )
    options = {
        "mesh": shard_mesh(state.mesh),
        "mp_policy": policy,
        "reshard_after_forward": getattr(sharding_strategy, "name", None) not in KEEP_GATHERED,
    }
    for experts in spread_experts(module):
        ready(experts)
        fully_shard(experts, **{**options, "mesh": shard_mesh(state.expert_mesh)})
    if auto_wrap_policy is not None:
        # Children before parents, as nested sharding needs.
        for child in reversed(list(module.modules())):
            elements = sum(parameter.numel() for parameter in child.parameters())
            if child is module or isinstance(child, FSDPModule):
                continue
            if auto_wrap_policy(module=child, recurse=False, nonwrapped_numel=elements):
                ready(child)
                fully_shard(child, **options)
    ready(module)
    return fsdp1.prepare(fully_shard(module, **options), state.mesh.get_group("shard"))


def spread(module):
    """Every rank gets the values of the first rank that holds the same part."""
    own_experts = {parameter for experts in spread_experts(module) for parameter in experts.parameters()}
    with torch.no_grad():
        for tensor in unsharded(module):
            local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
            mesh = state.expert_mesh if tensor in own_experts else state.mesh
            for axis in ("shard", "replicate"):
                group = mesh.get_group(axis)
                dist.broadcast(local, dist.get_global_rank(group, 0), group=group)


def unsharded(module):
    """Parameters and buffers, but for those of parts that FSDP has sharded already."""
    sharded = {inner for part in module.modules() if isinstance(part, FSDPModule) for inner in part.modules()}
    rest = [part for part in module.modules() if part not in sharded]
    found = [t for part in rest for t in [*part.parameters(recurse=False), *part.buffers(recurse=False)]]
    return list(dict.fromkeys(found))


def spread_experts(module):
    """Modules whose weights differ between the ranks of an expert-parallel group."""
    return [m for m in module.modules() if isinstance(m, Experts)] if state.expert_mesh is not None else []
