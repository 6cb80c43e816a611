"""What a rank does: holds one model for every variant and trains the one that is asked for.

All variants start from the same weights and see the same bytes, so their losses must agree.
"""

import time

import torch
import torch.distributed as dist
from gpt import VOCABULARY, Gpt

trainers = {}


def prepare(rank, size, shape, batch):
    """Builds the variants; returns the number of parameters."""
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    import trainyard_collective

    groups = {"smddp": dist.group.WORLD, "gloo": dist.new_group(backend="gloo")}

    def fresh():
        torch.manual_seed(1)
        return Gpt(**shape)

    trainers["alone"] = Trainer(fresh(), rank, shape["length"], batch)
    for backend, group in groups.items():
        trainers[f"ddp {backend}"] = Trainer(
            DistributedDataParallel(fresh(), process_group=group), rank, shape["length"], batch
        )
        mesh = DeviceMesh.from_group(group, "cpu")
        model = fresh()
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        if backend == "smddp":
            trainyard_collective.share_fsdp_memory(model)
        trainers[f"fsdp2 {backend}"] = Trainer(model, rank, shape["length"], batch)
    return sum(p.numel() for p in trainers["alone"].model.parameters())


class Trainer:
    def __init__(self, model, rank, length, batch):
        self.model = model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
        self.random = torch.Generator().manual_seed(rank)
        self.shape = (batch, length + 1)

    def step(self):
        loss = self.model(torch.randint(VOCABULARY, self.shape, generator=self.random))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


def turn(rank, size, variant, steps):
    """Trains `steps` steps after all ranks have met; returns this rank's seconds per step and last loss."""
    trainer = trainers[variant]
    dist.barrier()
    started = time.perf_counter()
    for _ in range(steps):
        loss = trainer.step()
    return (time.perf_counter() - started) / steps, loss
