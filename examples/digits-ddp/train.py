"""Classifies small images with DistributedDataParallel; a training script as SageMaker runs it.

torchrun starts it on every host, once per process; by hand, `python train.py --train data --model-dir /tmp`
trains in a single process. Shapes: N images, C channels, H height, W width.
"""

import argparse
import glob
import gzip
import os
import sys

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32, help="images per process and step")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train", default=os.environ.get("SM_CHANNEL_TRAIN"))
    parser.add_argument("--model-dir", default=os.environ.get("SM_MODEL_DIR"))
    arguments = parser.parse_args()
    for name in ("train", "model_dir"):
        if getattr(arguments, name) is None:
            parser.error(f"--{name.replace('_', '-')} is needed outside a training job")
    return arguments


def read_digits(path):
    """Rows of 64 grey values 0..16 and the class: (images_NCHW in 0..1, labels_N), shuffled once for everyone."""
    rows = np.loadtxt(path, delimiter=",", dtype=np.int64)
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    images_NCHW = torch.from_numpy(rows[:, :-1]).float().view(-1, 1, 8, 8) / 16
    labels_N = torch.from_numpy(rows[:, -1].copy())
    test_count = len(rows) // 6
    return (images_NCHW[test_count:], labels_N[test_count:]), (images_NCHW[:test_count], labels_N[:test_count])


def read_idx(folder, prefix):
    """MNIST and Fashion-MNIST as published: see https://github.com/zalandoresearch/fashion-mnist."""

    def read(name, header_bytes):
        with gzip.open(os.path.join(folder, f"{prefix}-{name}.gz")) as file:
            return torch.from_numpy(np.frombuffer(file.read(), dtype=np.uint8, offset=header_bytes).copy())

    images_NCHW = read("images-idx3-ubyte", 16).float().view(-1, 1, 28, 28) / 255
    return images_NCHW, read("labels-idx1-ubyte", 8).long()


def read_data(folder):
    digits = glob.glob(os.path.join(folder, "*.csv.gz"))
    if digits:
        return read_digits(digits[0])
    if os.path.exists(os.path.join(folder, "train-images-idx3-ubyte.gz")):
        return read_idx(folder, "train"), read_idx(folder, "t10k")
    raise SystemExit(f"{folder} holds neither a .csv.gz of digits nor train-images-idx3-ubyte.gz; it holds {os.listdir(folder)}")


def make_model():
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(4),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


@torch.no_grad()
def mean_over_ranks(total, count):
    """Sum of totals over sum of counts; every rank must call it and gets the same number."""
    pair = torch.tensor([float(total), float(count)], dtype=torch.float64)
    dist.all_reduce(pair)
    return (pair[0] / pair[1]).item()


@torch.no_grad()
def accuracy_on(model, images_NCHW, labels_N):
    """Share of right answers; each rank judges its part."""
    mine = slice(dist.get_rank(), None, dist.get_world_size())
    right = (model(images_NCHW[mine]).argmax(1) == labels_N[mine]).sum().item()
    return mean_over_ranks(right, len(labels_N[mine]))


def train(arguments):
    torch.manual_seed(arguments.seed)
    rank, world_size = dist.get_rank(), dist.get_world_size()
    (images_NCHW, labels_N), (test_images_NCHW, test_labels_N) = read_data(arguments.train)
    # Every rank takes the same number of steps, or the last all-reduce would wait for ever.
    steps = len(labels_N) // (arguments.batch_size * world_size)
    print(f"rank {rank} of {world_size}: {steps} steps an epoch, {steps * arguments.batch_size} of {len(labels_N)} images", flush=True)

    model = DistributedDataParallel(make_model())
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.lr)
    for epoch in range(1, arguments.epochs + 1):
        order_N = torch.from_numpy(np.random.default_rng([arguments.seed, epoch]).permutation(len(labels_N)))
        total = 0.0
        for step in range(steps):
            start = (step * world_size + rank) * arguments.batch_size
            batch = order_N[start : start + arguments.batch_size]
            loss = F.cross_entropy(model(images_NCHW[batch]), labels_N[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.item()
        mean_loss = mean_over_ranks(total, steps)
        accuracy = accuracy_on(model.module, test_images_NCHW, test_labels_N)
        if rank == 0:
            print(f"epoch={epoch} loss={mean_loss:.4f} accuracy={accuracy:.4f}", flush=True)

    if rank == 0:
        os.makedirs(arguments.model_dir, exist_ok=True)
        torch.save(model.module.state_dict(), os.path.join(arguments.model_dir, "model.pt"))
        print(f"saved {os.path.join(arguments.model_dir, 'model.pt')}", flush=True)


def main():
    arguments = parse_arguments()
    for name, alone in (("RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29411")):
        os.environ.setdefault(name, alone)
    dist.init_process_group("gloo")
    train(arguments)
    dist.destroy_process_group()
    # Gloo's threads may still run when the interpreter tears down, which can abort a process that has done its
    # work. Everything is written, so leave without the teardown.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
