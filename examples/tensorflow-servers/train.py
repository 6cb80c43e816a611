"""Asynchronous training with TensorFlow's parameter servers.

The launcher runs a parameter server beside this script on every host and names all of them in TF_CONFIG. The script
on the first host is the master: it hands steps to the workers, whose variables live on the servers. On the other
hosts the script lends its process as a worker until the master has gone.
"""

import argparse
import json
import os
import socket
import time

import numpy as np
import tensorflow as tf

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=300)
parser.add_argument("--batch-size", type=int, default=64, help="images per step of one worker")
parser.add_argument("--lr", type=float, default=0.5)
parser.add_argument("--train", default=os.environ.get("SM_CHANNEL_TRAIN"))
parser.add_argument("--model-dir", default=os.environ.get("SM_MODEL_DIR"))
arguments, _ = parser.parse_known_args()

configuration = json.loads(os.environ["TF_CONFIG"])
cluster, task = configuration["cluster"], configuration["task"]
master = cluster["master"][0]


def is_listening(address):
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
        return True
    except OSError:
        return False


def lend_worker():
    server = tf.distribute.Server(tf.train.ClusterSpec(cluster), job_name="worker", task_index=task["index"], protocol="grpc")
    print(f"worker {task['index']} serves at {server.target}", flush=True)
    while not is_listening(master):
        time.sleep(0.2)
    while is_listening(master):
        time.sleep(0.5)


def read_digits(folder):
    """(images_NF in 0..1, labels_N), shuffled; F = 64 grey values and a constant."""
    rows = np.loadtxt(os.path.join(folder, "digits.csv.gz"), delimiter=",", dtype=np.int64)
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    images_NF = np.hstack([rows[:, :-1] / 16, np.ones((len(rows), 1))]).astype(np.float32)
    return images_NF, rows[:, -1]


def lead():
    # TensorFlow 2 calls the leading task chief, where the launcher's TF_CONFIG has SageMaker's older name.
    spec = tf.train.ClusterSpec({"chief": cluster["master"], "worker": cluster["worker"], "ps": cluster["ps"]})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(spec, task_type="chief", task_id=0, rpc_layer="grpc")
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    images_NF, labels_N = read_digits(arguments.train)
    test_count = len(labels_N) // 6
    with strategy.scope():
        weights_FC = tf.Variable(tf.zeros([images_NF.shape[1], 10]))

    @tf.function
    def train_step(images_NF, labels_N):
        with tf.GradientTape() as tape:
            logits_NC = images_NF @ weights_FC
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels_N, logits_NC))
        weights_FC.assign_sub(arguments.lr * tape.gradient(loss, weights_FC))
        return loss

    generator = np.random.default_rng(1)
    for step in range(1, arguments.steps + 1):
        batch = generator.integers(test_count, len(labels_N), arguments.batch_size)
        loss = coordinator.schedule(train_step, args=(tf.constant(images_NF[batch]), tf.constant(labels_N[batch])))
        if step % 100 == 0:
            coordinator.join()
            print(f"step={step} loss={loss.fetch():.4f}", flush=True)
    guesses_N = (images_NF[:test_count] @ weights_FC.numpy()).argmax(axis=1)
    accuracy = (guesses_N == labels_N[:test_count]).mean()
    print(f"{len(cluster['worker'])} workers, {len(cluster['ps'])} servers: accuracy={accuracy:.4f}", flush=True)
    np.save(os.path.join(arguments.model_dir, "weights.npy"), weights_FC.numpy())


if task["type"] == "master":
    lead()
else:
    lend_worker()
