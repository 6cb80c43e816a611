"""Communication memory that the ranks of a host share."""


def share_fsdp_memory(model):
    """Lets every FSDP2 module of `model` communicate from shared memory.

    Call it after `fully_shard`, on every rank; modules that are not FSDP2's
    are skipped. Returns the number of modules. FSDP2's own setter concerns one
    module only, and modules inside it would keep ordinary memory.
    """
    from torch.distributed.fsdp import FSDPModule

    modules = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in modules:
        module.set_allocate_memory_from_process_group_for_comm(True)
    return len(modules)


def arena_stats():
    """Bytes of this process's arena: capacity_bytes, used_bytes, backed_bytes."""
    from trainyard_collective import _C

    return _C.arena_stats()
