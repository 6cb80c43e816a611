"""DistributedDataParallel over the data-parallel library, as scripts of SageMaker's smdistributed.dataparallel do it.

Two lines differ from any other DDP script: the import of `torch_smddp` and the name of the backend.
Shapes: N images, F = 64 grey values of an image.
"""

import argparse
import os

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import smdistributed.dataparallel.torch.torch_smddp  # noqa: F401  registers the backend


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=16, help="images per process and step")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--train", default=os.environ.get("SM_CHANNEL_TRAIN"))
    parser.add_argument("--model-dir", default=os.environ.get("SM_MODEL_DIR"))
    return parser.parse_args()


def read_digits(folder):
    """(images_NF in 0..1, labels_N) to train on and to test on, shuffled once for everyone."""
    rows = np.loadtxt(os.path.join(folder, "digits.csv.gz"), delimiter=",", dtype=np.int64)
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    images_NF = torch.from_numpy(rows[:, :-1]).float() / 16
    labels_N = torch.from_numpy(rows[:, -1].copy())
    test_count = len(rows) // 6
    return (images_NF[test_count:], labels_N[test_count:]), (images_NF[:test_count], labels_N[:test_count])


def main():
    arguments = parse_arguments()
    dist.init_process_group("smddp")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(1)
    (images_NF, labels_N), (test_images_NF, test_labels_N) = read_digits(arguments.train)
    steps = len(labels_N) // (arguments.batch_size * world_size)

    model = DistributedDataParallel(nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.lr)
    for epoch in range(1, arguments.epochs + 1):
        order_N = torch.from_numpy(np.random.default_rng(epoch).permutation(len(labels_N)))
        total = torch.zeros(())
        for step in range(steps):
            start = (step * world_size + rank) * arguments.batch_size
            batch = order_N[start : start + arguments.batch_size]
            loss = F.cross_entropy(model(images_NF[batch]), labels_N[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        dist.all_reduce(total, op=dist.ReduceOp.AVG)
        if rank == 0:
            print(f"epoch={epoch} loss={total.item() / steps:.4f}", flush=True)

    if rank == 0:
        with torch.no_grad():
            accuracy = (model.module(test_images_NF).argmax(1) == test_labels_N).float().mean().item()
        print(f"{dist.get_backend()} with {world_size} ranks: accuracy={accuracy:.4f}", flush=True)
        torch.save(model.module.state_dict(), os.path.join(arguments.model_dir, "model.pt"))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
