"""Linear regression by gradient descent whose gradients Horovod sums, for MXNet. Alone it computes the same in one process."""

import argparse
import os

import mxnet as mx
import numpy as np

STEPS, RATE, RANKS = 20, 0.1, 4


def rows(rank):
    random = np.random.RandomState(7)
    x = np.concatenate([random.rand(32, 3), np.ones((32, 1))], 1)
    y = x @ np.array([[1.0], [-2.0], [0.5], [0.25]])
    return [mx.nd.array(part[rank::RANKS], dtype='float64') for part in (x, y)]


def gradient(weights, x, y):
    return mx.nd.dot(x, mx.nd.dot(x, weights) - y, transpose_a=True) / 32.0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--alone')
    arguments, _ = parser.parse_known_args()
    weights = mx.nd.zeros((4, 1), dtype='float64')
    if arguments.alone:
        for _ in range(STEPS):
            weights = weights - RATE * sum(gradient(weights, *rows(rank)) for rank in range(RANKS))
        np.save(arguments.alone, weights.asnumpy())
        return
    import horovod.mxnet as hvd

    hvd.init()
    assert hvd.size() == RANKS, hvd.size()
    print('horovod rank', hvd.rank(), 'local', hvd.local_rank(), 'of', hvd.size(), flush=True)
    x, y = rows(hvd.rank())
    for _ in range(STEPS):
        total = hvd.allreduce(gradient(weights, x, y), average=False, name='gradient')
        total.wait_to_read()
        weights = weights - RATE * total
    if hvd.rank() == 0:
        np.save(os.path.join(os.environ['SM_MODEL_DIR'], 'weights.npy'), weights.asnumpy())
    hvd.shutdown()


if __name__ == '__main__':
    main()
