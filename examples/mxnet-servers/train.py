"""Synchronous training with MXNet's parameter servers.

The launcher starts a scheduler on the first host and a server on every host; this script is a worker on every host
and meets them by the DMLC_ variables. Shapes: N images, F = 64 grey values of an image.
"""

import argparse
import os

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon, nd

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=12)
parser.add_argument("--batch-size", type=int, default=32, help="images per worker and step")
parser.add_argument("--lr", type=float, default=0.5)
parser.add_argument("--train", default=os.environ.get("SM_CHANNEL_TRAIN"))
parser.add_argument("--model-dir", default=os.environ.get("SM_MODEL_DIR"))
arguments = parser.parse_args()

store = mx.kvstore.create("dist_sync" if "DMLC_ROLE" in os.environ else "local")
rows = np.loadtxt(os.path.join(arguments.train, "digits.csv.gz"), delimiter=",", dtype=np.int64)
rows = rows[np.random.default_rng(0).permutation(len(rows))]
images_NF, labels_N = nd.array(rows[:, :-1] / 16), nd.array(rows[:, -1])
test_count = len(rows) // 6

mx.random.seed(1)
net = gluon.nn.HybridSequential()
net.add(gluon.nn.Dense(128, activation="relu", in_units=64), gluon.nn.Dense(10, in_units=128))
net.initialize(mx.init.Xavier())
trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": arguments.lr}, kvstore=store)
loss_of = gluon.loss.SoftmaxCrossEntropyLoss()

steps = (len(rows) - test_count) // (arguments.batch_size * store.num_workers)
for epoch in range(1, arguments.epochs + 1):
    order_N = test_count + np.random.default_rng(epoch).permutation(len(rows) - test_count)
    total = 0.0
    for step in range(steps):
        start = (step * store.num_workers + store.rank) * arguments.batch_size
        batch = nd.array(order_N[start : start + arguments.batch_size])
        with autograd.record():
            loss = loss_of(net(images_NF.take(batch)), labels_N.take(batch))
        loss.backward()
        trainer.step(arguments.batch_size * store.num_workers)
        # Reading the loss waits for the step: two pushes of one key without a read between them race.
        total += loss.mean().asscalar()
        nd.waitall()
    if store.rank == 0:
        print(f"epoch={epoch} loss={total / steps:.4f}", flush=True)

if store.rank == 0:
    guesses_N = net(images_NF[:test_count]).argmax(axis=1)
    accuracy = (guesses_N == labels_N[:test_count]).mean().asscalar()
    print(f"{store.num_workers} workers: accuracy={accuracy:.4f}", flush=True)
    net.save_parameters(os.path.join(arguments.model_dir, "model.params"))
