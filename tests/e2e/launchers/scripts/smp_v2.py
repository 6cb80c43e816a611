"""Version 2 of SageMaker's model-parallel library: FSDP in shard groups of two ranks. Alone it is plain PyTorch."""

import argparse
import os

import numpy as np
import torch
import torch.distributed as dist

STEPS = 5


def network():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)).double()


def train(model, rank, size):
    generator = torch.Generator().manual_seed(7)
    x = torch.rand(16, 3, generator=generator, dtype=torch.float64)
    y = x.sum(1, keepdim=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x[rank::size]), y[rank::size])
        loss.backward()
        optimizer.step()
        loss = loss.detach()
        if size > 1:
            dist.all_reduce(loss)
        losses.append(loss.item() / size)
    return losses


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--alone')
    arguments, _ = parser.parse_known_args()
    if arguments.alone:
        np.save(arguments.alone, train(network(), 0, 1))
        return
    import torch.sagemaker as tsm
    from torch.sagemaker.fsdp import FullyShardedDataParallel

    dist.init_process_group('gloo')
    tsm.init()
    rank, size = dist.get_rank(), dist.get_world_size()
    print('parameters', os.environ['SM_HP_MP_PARAMETERS'], 'shards', tsm.state.hybrid_shard_degree, flush=True)
    losses = train(FullyShardedDataParallel(tsm.transform(network())), rank, size)
    if rank == 0:
        np.save(os.path.join(os.environ['SM_MODEL_DIR'], 'weights.npy'), losses)
    dist.destroy_process_group()


if __name__ == '__main__':
    main()
