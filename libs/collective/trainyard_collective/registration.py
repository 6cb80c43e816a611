"""Registers the backend with torch.distributed under its two names."""

import os
from datetime import timedelta

import torch
import torch.distributed as dist

NAMES = ("smddp", "trainyard")


def create_backend(options, pg_options=None):
    """Makes the backend of one process group; called by torch.distributed.

    CUDA tensors are passed on to NCCL, made beside it where torch has both.
    `pg_options` may be NCCL's (Megatron passes them); they go to NCCL.
    """
    from trainyard_collective import _C

    timeout = options.timeout
    if not isinstance(timeout, timedelta):
        timeout = timedelta(seconds=timeout)
    return _C.create_backend(
        options.store,
        options.group_rank,
        options.group_size,
        timeout,
        options.group_id,
        list(options.global_ranks_in_group or []),
        create_delegate(options, timeout, pg_options),
    )


def create_delegate(options, timeout, pg_options):
    if not (torch.cuda.is_available() and dist.is_nccl_available()):
        return None
    from torch.distributed import PrefixStore, ProcessGroupNCCL

    nccl_options = pg_options if isinstance(pg_options, ProcessGroupNCCL.Options) else ProcessGroupNCCL.Options()
    nccl_options._timeout = timeout
    store = PrefixStore("nccl/", options.store)
    return ProcessGroupNCCL(store, options.group_rank, options.group_size, nccl_options)


def register():
    """Registers `smddp` and `trainyard`; a second call changes nothing."""
    os.environ.setdefault("DDP_DISABLE_COMM_MEM", "0")
    for name in NAMES:
        if name.upper() not in dist.Backend._plugins:
            # A list: a bare string would be read character by character.
            dist.Backend.register_backend(name, create_backend, extended_api=True, devices=["cpu", "cuda"])
