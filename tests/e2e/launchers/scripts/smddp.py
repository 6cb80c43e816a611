"""DDP over the backend of SageMaker's data-parallel library. Alone it takes the whole batch in one process."""

import argparse
import os

import numpy as np
import torch
import torch.distributed as dist

STEPS, RANKS = 10, 4


def train(model, rank, size):
    generator = torch.Generator().manual_seed(7)
    x = torch.rand(32, 3, generator=generator, dtype=torch.float64)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64) + 0.25
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x[rank::size]), y[rank::size]).backward()
        optimizer.step()


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()


def network():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)).double()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--alone')
    arguments, _ = parser.parse_known_args()
    if arguments.alone:
        model = network()
        train(model, 0, 1)
        np.save(arguments.alone, weights(model))
        return
    import smdistributed.dataparallel.torch.torch_smddp  # noqa: F401  registers the backend

    dist.init_process_group('smddp')
    rank, size = dist.get_rank(), dist.get_world_size()
    assert size == RANKS
    names = ['RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE', 'SMDATAPARALLEL_LOCAL_RANK', 'MASTER_PORT',
             'TRAINYARD_COLLECTIVE_HOST_ID', 'TRAINYARD_COLLECTIVE_INTERFACE']
    print('sees', *(f'{name}={os.environ.get(name)}' for name in names), flush=True)
    secrets = [None] * size
    dist.all_gather_object(secrets, os.environ.get('TRAINYARD_COLLECTIVE_SECRET'))
    assert secrets[0] and len(set(secrets)) == 1
    model = network()
    train(torch.nn.parallel.DistributedDataParallel(model), rank, size)
    if rank == 0:
        print('backend', dist.get_backend(), flush=True)
        np.save(os.path.join(os.environ['SM_MODEL_DIR'], 'weights.npy'), weights(model))
    dist.destroy_process_group()


if __name__ == '__main__':
    main()
