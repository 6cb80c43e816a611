"""Version 1 of SageMaker's model-parallel library: two pipeline stages, each on two ranks. Alone it is plain PyTorch."""

import argparse
import os

import numpy as np
import torch

STEPS = 5


def network():
    torch.manual_seed(1)
    layers = [torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)]
    return torch.nn.Sequential(*layers).double()


def batch():
    generator = torch.Generator().manual_seed(7)
    x = torch.rand(16, 3, generator=generator, dtype=torch.float64)
    return x, x.sum(1, keepdim=True)


def alone():
    model, losses = network(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    x, y = batch()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def train(smp):
    @smp.step
    def step(model, x, y):
        loss = torch.nn.functional.mse_loss(model(x), y)
        model.backward(loss)
        return loss

    model = smp.DistributedModel(network())
    optimizer = smp.DistributedOptimizer(torch.optim.AdamW(model.parameters(), lr=0.01))
    x, y = batch()
    half = slice(smp.dp_rank() * 8, smp.dp_rank() * 8 + 8)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = step(model, x[half], y[half]).reduce_mean().detach().double()
        optimizer.step()
        torch.distributed.all_reduce(loss, group=smp.get_dp_process_group())
        losses.append(loss.item() / smp.dp_size())
    return losses


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--alone')
    arguments, _ = parser.parse_known_args()
    if arguments.alone:
        np.save(arguments.alone, alone())
        return
    import smdistributed.modelparallel.torch as smp

    smp.init()
    print('parameters', os.environ['SM_HP_MP_PARAMETERS'], 'pp', smp.pp_size(), 'dp', smp.dp_size(), flush=True)
    losses = train(smp)
    if smp.rank() == 0:
        np.save(os.path.join(os.environ['SM_MODEL_DIR'], 'weights.npy'), losses)
    smp.barrier()


if __name__ == '__main__':
    main()
