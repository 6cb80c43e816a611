"""Meets all ranks over torch.distributed and proves it: a sum that only all of them together give, and equal replicas."""

import argparse
import json
import os

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

parser = argparse.ArgumentParser()
parser.add_argument('--backend', default='gloo')
arguments, _ = parser.parse_known_args()
if arguments.backend == 'smddp':
    import smdistributed.dataparallel.torch.torch_smddp  # noqa: F401 - registers the backend

dist.init_process_group(arguments.backend)
rank, world = dist.get_rank(), dist.get_world_size()
total = torch.tensor([float(rank + 1)])
dist.all_reduce(total)

torch.manual_seed(rank)  # DDP takes the weights of rank 0 for all
model = DistributedDataParallel(torch.nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(5):
    x = torch.full((8, 4), float(rank + 1 + step))
    optimizer.zero_grad()
    model(x).pow(2).mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
flat = torch.cat([p.detach().flatten() for p in model.parameters()])
copies = [torch.zeros_like(flat) for _ in range(world)]
dist.all_gather(copies, flat)
spread = max(float((copy - copies[0]).abs().max()) for copy in copies)

if rank == 0:
    torch.save(model.module.state_dict(), os.path.join(os.environ['SM_MODEL_DIR'], 'model.pt'))
print('RESULT ' + json.dumps({'rank': rank, 'world': world, 'sum': total.item(), 'spread': spread,
                              'backend': dist.get_backend()}), flush=True)
dist.destroy_process_group()
