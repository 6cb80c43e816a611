"""Linear regression by gradient descent over TensorFlow's parameter servers. Alone it computes the same weights in one
process. Every worker has its half of the rows; the master adds their gradients."""

import argparse
import json
import os

import numpy as np
import tensorflow as tf

STEPS, RATE, WORKERS = 20, 0.1, 2


def rows(worker):
    random = np.random.RandomState(7)
    x = random.rand(32, 3)
    y = x @ np.array([[1.0], [-2.0], [0.5]]) + 0.25
    return x[worker::WORKERS], y[worker::WORKERS]


def gradient(weights, x, y):
    ones = tf.ones((tf.shape(x)[0], 1), tf.float64)
    inputs = tf.concat([x, ones], 1)
    return tf.linalg.matmul(inputs, tf.matmul(inputs, weights) - y, transpose_a=True) / 32.0


def alone():
    weights = tf.zeros((4, 1), tf.float64)
    for _ in range(STEPS):
        weights -= RATE * sum(gradient(weights, *map(tf.constant, rows(worker))) for worker in range(WORKERS))
    return weights.numpy()


def coordinate(cluster):
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster), task_type='chief', task_id=0, rpc_layer='grpc')
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    with strategy.scope():
        weights = tf.Variable(tf.zeros((4, 1), tf.float64))
    print('weights live on', weights.device, flush=True)
    step = tf.function(lambda x, y: gradient(weights, x, y))
    for _ in range(STEPS):
        parts = [coordinator.schedule(step, args=tuple(map(tf.constant, rows(worker)))) for worker in range(WORKERS)]
        coordinator.join()
        weights.assign_sub(RATE * sum(part.fetch() for part in parts))
    return weights.numpy()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--model_dir')
    parser.add_argument('--alone')
    arguments, _ = parser.parse_known_args()
    if arguments.alone:
        np.save(arguments.alone, alone())
        return
    config = json.loads(os.environ['TF_CONFIG'])
    print('TF_CONFIG', json.dumps(config, sort_keys=True), flush=True)
    # SageMaker's master is TensorFlow 2's chief; it coordinates and listens nowhere.
    cluster = dict(config['cluster'])
    cluster['chief'] = cluster.pop('master')
    if config['task']['type'] == 'worker':
        tf.distribute.Server(cluster, job_name='worker', task_index=config['task']['index']).join()
    weights = coordinate(cluster)
    np.save(os.path.join(os.environ['SM_MODEL_DIR'], 'weights.npy'), weights)
    print('done', weights.ravel().tolist(), flush=True)


if __name__ == '__main__':
    main()
