"""A job of two groups: hosts of the group `helpers` prepare batches, ranks on those of `trainers` train on them.

A helper sends randomly shifted images to every rank that asks; it ends when all ranks have gone. Ranks take the
batches of their helper and train as any DDP script does. Shapes: N images, H height, W width.
"""

import argparse
import json
import os
import sys
import threading
import time
from multiprocessing.connection import Client, Listener

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

PORT = 9400
SHIFTS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--train", default=os.environ.get("SM_CHANNEL_TRAIN"))
    parser.add_argument("--model-dir", default=os.environ.get("SM_MODEL_DIR"))
    return parser.parse_args()


def read_digits(folder):
    """(images_NHW in 0..1, labels_N), shuffled; the first sixth is for tests."""
    rows = np.loadtxt(os.path.join(folder, "digits.csv.gz"), delimiter=",", dtype=np.int64)
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    return (rows[:, :-1].reshape(-1, 8, 8) / 16).astype(np.float32), rows[:, -1]


def help_trainers(arguments):
    images_NHW, labels_N = read_digits(arguments.train)
    test_count = len(labels_N) // 6

    def serve(link, rank):
        generator = np.random.default_rng(rank)
        sent = 0
        while link.recv() == "next":
            batch = generator.integers(test_count, len(labels_N), arguments.batch_size)
            shift = SHIFTS[generator.integers(len(SHIFTS))]
            link.send((np.roll(images_NHW[batch], shift, axis=(1, 2)), labels_N[batch]))
            sent += 1
        print(f"helped rank {rank} with {sent} batches", flush=True)

    with Listener(("", PORT)) as listener:
        threads = []
        rank_count = 1
        while len(threads) < rank_count:
            link = listener.accept()
            rank, rank_count = link.recv()
            threads.append(threading.Thread(target=serve, args=(link, rank)))
            threads[-1].start()
        for thread in threads:
            thread.join()


def connect(host, deadline_seconds=60):
    end = time.monotonic() + deadline_seconds
    while True:
        try:
            return Client((host, PORT))
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def train(arguments, helper):
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(1)
    model = nn.parallel.DistributedDataParallel(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.lr)
    with connect(helper) as link:
        link.send((rank, dist.get_world_size()))
        for step in range(1, arguments.steps + 1):
            link.send("next")
            images_NHW, labels_N = link.recv()
            loss = nn.functional.cross_entropy(model(torch.from_numpy(images_NHW)), torch.from_numpy(labels_N))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 50 == 0 and rank == 0:
                print(f"step={step} loss={loss.item():.4f}", flush=True)
        link.send("done")
    if rank == 0:
        images_NHW, labels_N = read_digits(arguments.train)
        test = slice(0, len(labels_N) // 6)
        right_N = model.module(torch.from_numpy(images_NHW[test])).argmax(1) == torch.from_numpy(labels_N[test])
        print(f"{dist.get_world_size()} ranks helped by {helper}: accuracy={right_N.float().mean().item():.4f}", flush=True)
        torch.save(model.module.state_dict(), os.path.join(arguments.model_dir, "model.pt"))
    dist.barrier()
    # Gloo's threads can deadlock with a group that goes while they end. Everything is written: leave without it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def main():
    arguments = parse_arguments()
    groups = json.loads(os.environ["SM_INSTANCE_GROUPS_DICT"])
    if os.environ["SM_CURRENT_INSTANCE_GROUP"] == "helpers":
        help_trainers(arguments)
    else:
        train(arguments, groups["helpers"]["hosts"][0])


if __name__ == "__main__":
    main()
