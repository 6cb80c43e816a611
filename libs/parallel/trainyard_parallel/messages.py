"""Python objects between ranks: pickled, blocking, in order per pair of ranks.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-parallel-customize-training-script-pt.html (communication API).
`broadcast` is called by the sender only; every other member calls `recv_from`, as in SageMaker's library.
"""

import io
from enum import Enum

import torch
import torch.distributed as dist

from trainyard_parallel.state import state


class CommGroup(Enum):
    WORLD = "world"
    MP_GROUP = "mp"
    PP_GROUP = "pp"
    TP_GROUP = "tp"
    DP_GROUP = "dp"
    RDP_GROUP = "rdp"


class RankType(Enum):
    WORLD_RANK = "world"
    MP_RANK = "mp"
    PP_RANK = "pp"
    TP_RANK = "tp"
    DP_RANK = "dp"
    RDP_RANK = "rdp"


def global_rank(rank, rank_type):
    ranks = state.ranks(rank_type.value)
    if not 0 <= rank < len(ranks):
        raise ValueError(f"rank {rank} does not exist in {rank_type.name}, which has ranks 0 to {len(ranks) - 1} ({ranks})")
    return ranks[rank]


def encode(obj):
    buffer = io.BytesIO()
    torch.save(obj, buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def decode(data):
    # Peers of one job trust each other: objects of any class travel.
    return torch.load(io.BytesIO(data.numpy().tobytes()), map_location=state.process.device, weights_only=False)


def send(obj, dest_rank, rank_type):
    """Sends any picklable object to `dest_rank` of this rank's group of that kind; blocks until it is taken over."""
    data, peer = encode(obj), global_rank(dest_rank, rank_type)
    if peer == state.process.rank:
        raise ValueError(f"rank {dest_rank} of {rank_type.name} is this rank; an object is sent to another rank")
    dist.send(torch.tensor([data.numel()]), peer)
    dist.send(data, peer)


def recv_from(src_rank, rank_type):
    """Returns the next object that `src_rank` sent or broadcast to this rank; tensors arrive on this rank's device."""
    peer = global_rank(src_rank, rank_type)
    size = torch.zeros(1, dtype=torch.long)
    dist.recv(size, peer)
    data = torch.empty(int(size), dtype=torch.uint8)
    dist.recv(data, peer)
    return decode(data)


def broadcast(obj, group):
    """Sends to every other member of the group; only the sender calls it, the others call `recv_from`."""
    for index, rank in enumerate(state.ranks(group.value)):
        if rank != state.process.rank:
            send(obj, index, RankType(group.value))


def allgather(obj, group):
    """Returns the objects of all members, in order of their rank in the group; every member calls it."""
    data = encode(obj)
    handle, size = state.group(group.value), state.size(group.value)
    sizes = [torch.zeros(1, dtype=torch.long) for _ in range(size)]
    dist.all_gather(sizes, torch.tensor([data.numel()]), group=handle)
    longest = max(int(s) for s in sizes)
    padded = torch.zeros(longest, dtype=torch.uint8)
    padded[: data.numel()] = data
    gathered = [torch.empty(longest, dtype=torch.uint8) for _ in range(size)]
    dist.all_gather(gathered, padded, group=handle)
    return [decode(data[: int(size)]) for data, size in zip(gathered, sizes)]


def barrier(group=CommGroup.WORLD):
    """Returns when every member of the group has called it."""
    dist.all_reduce(torch.zeros(1), group=state.group(group.value))


def mp_barrier():
    barrier(CommGroup.MP_GROUP)


def dp_barrier():
    barrier(CommGroup.DP_GROUP)
