"""Registers the backend with torch.distributed under its two names."""

import atexit
import os
from datetime import timedelta

import torch
import torch.distributed as dist

from trainyard_collective.flight_record import dump_on_signal
from trainyard_collective.launcher import fill_environment
from trainyard_collective.vendor_variables import check_vendor_variables

NAMES = ("smddp", "trainyard")
# How long a script that ends without destroy_process_group waits for
# operations that it has left behind.
EXIT_LIMIT = timedelta(seconds=1)


def create_backend(options, pg_options=None):
    """Makes the backend of one process group; called by torch.distributed.

    CUDA tensors are passed on to NCCL, made beside it where torch has both.
    `pg_options` may be NCCL's (Megatron passes them); they go to NCCL.
    """
    from trainyard_collective import _C

    close_at_exit()
    ranks = list(options.global_ranks_in_group or range(options.group_size))
    dump_on_signal(ranks[options.group_rank])
    check_vendor_variables(ranks[options.group_rank])
    timeout = options.timeout
    if not isinstance(timeout, timedelta):
        timeout = timedelta(seconds=timeout)
    return _C.create_backend(
        options.store,
        options.group_rank,
        options.group_size,
        timeout,
        options.group_id,
        ranks,
        create_delegate(options, timeout, pg_options),
    )


def close_at_exit():
    if not getattr(close_at_exit, "registered", False):
        from trainyard_collective import _C

        close_at_exit.registered = True
        atexit.register(_C.close_all, EXIT_LIMIT)


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
    fill_environment()
    for name in NAMES:
        if name.upper() not in dist.Backend._plugins:
            # A list: a bare string would be read character by character.
            dist.Backend.register_backend(name, create_backend, extended_api=True, devices=["cpu", "cuda"])
