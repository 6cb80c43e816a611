"""Logistic regression by plain MPI: every rank computes the gradient of its rows, MPI adds them up.

No framework is involved; `mpi4py` starts the script under mpirun as SageMaker's `mpi` distribution does.
Shapes: N images, F = 64 grey values and a constant, C = 10 classes.
"""

import argparse
import os

import numpy as np
from mpi4py import MPI

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=400)
parser.add_argument("--lr", type=float, default=2.0)
parser.add_argument("--train", default=os.environ.get("SM_CHANNEL_TRAIN"))
parser.add_argument("--model-dir", default=os.environ.get("SM_MODEL_DIR"))
arguments = parser.parse_args()

world = MPI.COMM_WORLD
rows = np.loadtxt(os.path.join(arguments.train, "digits.csv.gz"), delimiter=",", dtype=np.int64)
rows = rows[np.random.default_rng(0).permutation(len(rows))]
test_count = len(rows) // 6
images_NF = np.hstack([rows[:, :-1] / 16, np.ones((len(rows), 1))])
labels_N = rows[:, -1]
mine = slice(test_count + world.rank, None, world.size)
images, targets = images_NF[mine], np.eye(10)[labels_N[mine]]
count = world.allreduce(len(images))

weights_FC = np.zeros((65, 10))
for step in range(1, arguments.steps + 1):
    logits = images @ weights_FC
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    gradient_FC = images.T @ (shares - targets)
    world.Allreduce(MPI.IN_PLACE, gradient_FC)
    weights_FC -= arguments.lr * gradient_FC / count
    if step % 100 == 0:
        loss = world.allreduce(-np.log(shares[targets == 1]).sum()) / count
        if world.rank == 0:
            print(f"step={step} loss={loss:.4f}", flush=True)

if world.rank == 0:
    guesses_N = (images_NF[:test_count] @ weights_FC).argmax(axis=1)
    print(f"{world.size} ranks: accuracy={(guesses_N == labels_N[:test_count]).mean():.4f}", flush=True)
    np.save(os.path.join(arguments.model_dir, "weights.npy"), weights_FC)
