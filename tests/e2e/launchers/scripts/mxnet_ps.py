"""Linear regression by gradient descent over MXNet's parameter servers (dist_sync). Alone it computes the same weights in
one process."""

import argparse
import os

import mxnet as mx
import numpy as np

STEPS, RATE, WORKERS = 20, 0.1, 2


def rows(worker):
    random = np.random.RandomState(7)
    x = np.concatenate([random.rand(32, 3), np.ones((32, 1))], 1).astype('float32')
    y = x @ np.array([[1.0], [-2.0], [0.5], [0.25]], 'float32')
    return mx.nd.array(x[worker::WORKERS]), mx.nd.array(y[worker::WORKERS])


def gradient(weights, x, y):
    return mx.nd.dot(x, mx.nd.dot(x, weights) - y, transpose_a=True) / 32.0


def alone():
    weights = mx.nd.zeros((4, 1))
    for _ in range(STEPS):
        weights = weights - RATE * sum(gradient(weights, *rows(worker)) for worker in range(WORKERS))
    return weights.asnumpy()


def train():
    store = mx.kv.create('dist_sync')
    print('worker', store.rank, 'of', store.num_workers, flush=True)
    x, y = rows(store.rank)
    weights, total = mx.nd.zeros((4, 1)), mx.nd.zeros((4, 1))
    store.init('gradient', total)
    for _ in range(STEPS):
        store.push('gradient', gradient(weights, x, y))
        store.pull('gradient', out=total)
        # Pushing a key again before it was read races on CPU arrays.
        total.wait_to_read()
        weights = weights - RATE * total
    return store, weights.asnumpy()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--alone')
    arguments, _ = parser.parse_known_args()
    if arguments.alone:
        np.save(arguments.alone, alone())
        return
    print({name: value for name, value in sorted(os.environ.items()) if name.startswith(('DMLC_', 'PS_'))}, flush=True)
    store, weights = train()
    if store.rank == 0:
        np.save(os.path.join(os.environ['SM_MODEL_DIR'], 'weights.npy'), weights)
    print('done', weights.ravel().tolist(), flush=True)


if __name__ == '__main__':
    main()
