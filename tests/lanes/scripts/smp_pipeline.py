"""Version 1 of the model-parallel library: two pipeline stages, one on each host."""

import argparse
import json

import smdistributed.modelparallel.torch as smp
import torch

argparse.ArgumentParser().parse_known_args()
smp.init()


@smp.step
def step(model, x, y):
    loss = torch.nn.functional.mse_loss(model(x), y)
    model.backward(loss)
    return loss


torch.manual_seed(1)
model = smp.DistributedModel(torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)))
optimizer = smp.DistributedOptimizer(torch.optim.AdamW(model.parameters(), lr=0.02))
x = torch.rand(16, 3, generator=torch.Generator().manual_seed(7))
losses = []
for _ in range(10):
    optimizer.zero_grad()
    losses.append(float(step(model, x, x.sum(1, keepdim=True)).reduce_mean()))
    optimizer.step()
print('RESULT ' + json.dumps({'rank': smp.rank(), 'stages': smp.pp_size(), 'loss': losses[-1], 'fell': losses[-1] < losses[0]}),
      flush=True)
smp.barrier()
