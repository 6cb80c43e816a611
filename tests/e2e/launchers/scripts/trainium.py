"""A script for Trainium as AWS documents them: the backend xla, one process on each NeuronCore. Alone it takes the whole
batch in one process."""

import argparse
import os

import numpy as np
import torch

STEPS = 10


def train(model, rank, size, step):
    generator = torch.Generator().manual_seed(7)
    x = torch.rand(32, 3, generator=generator, dtype=torch.float64)
    y = x.sum(1, keepdim=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x[rank::size]), y[rank::size]).backward()
        step(optimizer)
    return torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()


def network():
    torch.manual_seed(1)
    return torch.nn.Linear(3, 1).double()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--alone')
    arguments, _ = parser.parse_known_args()
    if arguments.alone:
        np.save(arguments.alone, train(network(), 0, 1, lambda optimizer: optimizer.step()))
        return
    import torch_xla.core.xla_model as xm
    import torch_xla.distributed.xla_backend  # noqa: F401  registers the backend

    torch.distributed.init_process_group('xla')
    print('ordinal', xm.get_ordinal(), 'of', xm.xrt_world_size(), 'cores', os.environ['SM_NUM_NEURONS'], flush=True)
    weights = train(network().to(xm.xla_device()), xm.get_ordinal(), xm.xrt_world_size(), xm.optimizer_step)
    if xm.is_master_ordinal():
        np.save(os.path.join(os.environ['SM_MODEL_DIR'], 'weights.npy'), weights)
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main()
