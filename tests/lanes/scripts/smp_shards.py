"""Version 2 of the model-parallel library: FSDP in shard groups of two ranks."""

import argparse
import json

import torch
import torch.distributed as dist
import torch.sagemaker as tsm
from torch.sagemaker.fsdp import FullyShardedDataParallel

argparse.ArgumentParser().parse_known_args()
dist.init_process_group('gloo')
tsm.init()
rank, world = dist.get_rank(), dist.get_world_size()

torch.manual_seed(1)
model = FullyShardedDataParallel(tsm.transform(torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
x = torch.rand(16, 3, generator=torch.Generator().manual_seed(7))[rank::world]
losses = []
for _ in range(10):
    optimizer.zero_grad()
    loss = torch.nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print('RESULT ' + json.dumps({'rank': rank, 'world': world, 'shards': tsm.state.hybrid_shard_degree, 'fell': losses[-1] < losses[0]}),
      flush=True)
dist.destroy_process_group()
