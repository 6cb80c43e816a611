"""The interface of versions 1.0 to 1.3, deprecated since 1.4.

Every call is passed on to torch.distributed with backend `smddp`. Use that
directly in new scripts.
"""

import os
import warnings

import torch.distributed as _dist

import trainyard_collective
from trainyard_collective.launcher import find_launcher as _find_launcher

trainyard_collective.register()


class _Warned:
    done = False


def _warn():
    if not _Warned.done:
        _Warned.done = True
        warnings.warn(
            "smdistributed.dataparallel.torch.distributed is deprecated since version 1.4: import "
            "smdistributed.dataparallel.torch.torch_smddp and use torch.distributed with backend 'smddp' and "
            "torch.nn.parallel.DistributedDataParallel",
            DeprecationWarning,
            stacklevel=3,
        )


class ReduceOp:
    """The operations of versions 1.x; AVERAGE is torch's AVG."""

    AVERAGE = _dist.ReduceOp.AVG
    SUM = _dist.ReduceOp.SUM
    MIN = _dist.ReduceOp.MIN
    MAX = _dist.ReduceOp.MAX


class group:
    """The only group of versions 1.x."""

    WORLD = None


def is_available():
    """True if this process was started by a distributed launcher."""
    return _find_launcher() is not None


def init_process_group(*args, **kwargs):
    """Joins the job's ranks. All arguments are accepted and ignored: rank, size
    and address come from the launcher. A second call does nothing.

    Raises RuntimeError if the process was not started by a launcher.
    """
    _warn()
    if _dist.is_initialized():
        return
    names = _find_launcher()
    if names is None:
        raise RuntimeError(
            "init_process_group: neither RANK and WORLD_SIZE nor the variables of mpirun or srun are set; start the "
            "script with torchrun or mpirun"
        )
    os.environ.setdefault("MASTER_ADDR", os.environ.get("SMDATAPARALLEL_SERVER_ADDR", "127.0.0.1"))
    os.environ.setdefault("MASTER_PORT", os.environ.get("SMDATAPARALLEL_SERVER_PORT", "7592"))
    _dist.init_process_group("smddp", rank=int(os.environ[names[0]]), world_size=int(os.environ[names[1]]))


def is_initialized():
    return _dist.is_initialized()


def get_world_size(group=group.WORLD):
    return _dist.get_world_size()


def get_rank(group=group.WORLD):
    """The rank in the job."""
    return _dist.get_rank()


def get_local_rank():
    """The rank inside the host."""
    names = _find_launcher()
    if names is None or names[2] not in os.environ:
        raise RuntimeError("get_local_rank: LOCAL_RANK is not set; start the script with torchrun or mpirun")
    return int(os.environ[names[2]])


def all_reduce(tensor, op=ReduceOp.SUM, group=group.WORLD, async_op=False):
    """Reduces `tensor` in place. Returns a handle with wait() if async_op.

    Raises ValueError for AVERAGE of integers, which has no defined rounding.
    """
    return _dist.all_reduce(tensor, op=op, async_op=async_op)


def broadcast(tensor, src=0, group=group.WORLD, async_op=False):
    """Overwrites `tensor` with that of rank `src`."""
    return _dist.broadcast(tensor, src, async_op=async_op)


def all_gather(tensor_list, tensor, group=group.WORLD, async_op=False):
    """Fills `tensor_list`, one tensor for every rank."""
    return _dist.all_gather(tensor_list, tensor, async_op=async_op)


def all_to_all_single(
    output, input, output_split_sizes=None, input_split_sizes=None, group=group.WORLD, async_op=False
):
    """Exchanges slices along dimension 0; equal ones if no sizes are given."""
    return _dist.all_to_all_single(output, input, output_split_sizes, input_split_sizes, async_op=async_op)


def barrier(group=group.WORLD, async_op=False):
    return _dist.barrier(async_op=async_op)

