"""A network split into pipeline stages by the model-parallel library, in the style of its version 1.

The script is written for one process: `smp.DistributedModel` decides which layers live on which rank, and `smp.step`
splits each batch into the micro-batches that flow through them. Shapes: N images, F = 64 grey values of an image.
"""

import argparse
import os

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import smdistributed.modelparallel.torch as smp


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=64, help="images per step of one model replica")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--train", default=os.environ.get("SM_CHANNEL_TRAIN"))
    parser.add_argument("--model-dir", default=os.environ.get("SM_MODEL_DIR"))
    return parser.parse_known_args()[0]  # the launcher may add arguments of its own


def read_digits(folder):
    """(images_NF in 0..1, labels_N) to train on and to test on, shuffled once for everyone."""
    rows = np.loadtxt(os.path.join(folder, "digits.csv.gz"), delimiter=",", dtype=np.int64)
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    images_NF = torch.from_numpy(rows[:, :-1]).float() / 16
    labels_N = torch.from_numpy(rows[:, -1].copy())
    test_count = len(rows) // 6
    return (images_NF[test_count:], labels_N[test_count:]), (images_NF[:test_count], labels_N[:test_count])


@smp.step
def train_step(model, images_NF, labels_N):
    logits_NC = model(images_NF)
    loss = F.cross_entropy(logits_NC, labels_N)
    model.backward(loss)
    return loss


@smp.step
def test_step(model, images_NF, labels_N):
    return (model(images_NF).argmax(1) == labels_N).float().mean()


def main():
    arguments = parse_arguments()
    smp.init()
    torch.manual_seed(1)
    (images_NF, labels_N), (test_images_NF, test_labels_N) = read_digits(arguments.train)

    layers = [nn.Linear(64, 256), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Linear(256, 256), nn.ReLU()]
    model = smp.DistributedModel(nn.Sequential(*layers, nn.Linear(256, 10)))
    optimizer = smp.DistributedOptimizer(torch.optim.AdamW(model.parameters(), lr=arguments.lr))

    replicas, replica = smp.dp_size(), smp.dp_rank()
    steps = len(labels_N) // (arguments.batch_size * replicas)
    for epoch in range(1, arguments.epochs + 1):
        order_N = torch.from_numpy(np.random.default_rng(epoch).permutation(len(labels_N)))
        total = 0.0
        for step in range(steps):
            start = (step * replicas + replica) * arguments.batch_size
            batch = order_N[start : start + arguments.batch_size]
            optimizer.zero_grad()
            total += train_step(model, images_NF[batch], labels_N[batch]).reduce_mean().item()
            optimizer.step()
        if smp.rank() == 0:
            print(f"epoch={epoch} loss={total / steps:.4f}", flush=True)

    model.eval()
    count = len(test_labels_N) // arguments.batch_size * arguments.batch_size
    accuracy = test_step(model, test_images_NF[:count], test_labels_N[:count]).reduce_mean().item()
    if smp.rank() == 0:
        print(f"{smp.pp_size()} stages x {replicas} replicas: accuracy={accuracy:.4f}", flush=True)
    smp.save_checkpoint(arguments.model_dir, tag="last", partial=False, model=model, optimizer=optimizer)


if __name__ == "__main__":
    main()
