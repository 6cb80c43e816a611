"""A user's training script: DDP, FSDP2 and a checkpoint; started by torchrun or mpirun.

    train_script.py FOLDER [old]

Each rank writes FOLDER/rank-R.pt. With `old` it uses the interface of versions 1.x.
"""

import copy
import os
import sys

import torch
import torch.distributed as dist
from torch import nn

STEPS = 3
ROWS = 8


def make_model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))


def rows_of(rank, step):
    generator = torch.Generator().manual_seed(1000 * step + rank)
    return torch.randn(ROWS, 16, generator=generator), torch.randn(ROWS, 4, generator=generator)


def train(model, rank):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        x, y = rows_of(rank, step)
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def main_of_today(folder):
    import smdistributed.dataparallel.torch.torch_smddp  # noqa: F401
    import torch.distributed.checkpoint as dcp
    from torch.distributed.fsdp import fully_shard

    import trainyard_collective

    dist.init_process_group("smddp")
    rank, local_rank = dist.get_rank(), int(os.environ["LOCAL_RANK"])
    model = make_model()
    sharded = copy.deepcopy(model)
    train(nn.parallel.DistributedDataParallel(model), rank)

    fully_shard(sharded)
    trainyard_collective.share_fsdp_memory(sharded)
    train(sharded, rank)
    dcp.save(sharded.state_dict(), checkpoint_id=os.path.join(folder, "checkpoint"))
    names = [None] * dist.get_world_size()
    dist.all_gather_object(names, f"rank {rank}")
    return {
        "local_rank": local_rank,
        "names": names,
        "ddp": flat(model.parameters()),
        "fsdp": flat(p.full_tensor() for p in sharded.parameters()),
    }


def main_of_version_1():
    import smdistributed.dataparallel.torch.distributed as old
    from smdistributed.dataparallel.torch.parallel import DistributedDataParallel

    old.init_process_group()
    model = make_model()
    train(DistributedDataParallel(model, broadcast_buffers=False), old.get_rank())
    return {
        "local_rank": old.get_local_rank(),
        "names": [f"rank {rank}" for rank in range(old.get_world_size())],
        "ddp": flat(model.parameters()),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = main_of_version_1() if "old" in sys.argv[2:] else main_of_today(sys.argv[1])
    assert dist.get_backend() == "smddp"
    torch.save(result, os.path.join(sys.argv[1], f"rank-{dist.get_rank()}.pt"))
    dist.destroy_process_group()
