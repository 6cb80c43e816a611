"""A linear model fitted by Keras under MultiWorkerMirroredStrategy, one worker on each host. Alone it fits the same
batches in one process."""

import argparse
import json
import os

import numpy as np
import tensorflow as tf


def data():
    random = np.random.RandomState(7)
    x = random.rand(32, 3).astype('float32')
    return x, x @ np.array([[1.0], [-2.0], [0.5]], 'float32') + 0.25


def fit(strategy):
    x, y = data()
    options = tf.data.Options()
    # Every worker takes its part of each batch, so that the batches are those of one process.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(32).with_options(options)
    with strategy.scope():
        model = tf.keras.Sequential([tf.keras.layers.Dense(1, kernel_initializer='zeros', input_shape=(3,))])
        model.compile(tf.keras.optimizers.SGD(0.1), 'mse')
    history = model.fit(batches, epochs=10, verbose=0)
    print('loss', history.history['loss'][-1], flush=True)
    kernel, bias = model.get_weights()
    return np.append(kernel.ravel(), bias)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--alone')
    arguments, _ = parser.parse_known_args()
    if arguments.alone:
        np.save(arguments.alone, fit(tf.distribute.get_strategy()))
        return
    print('TF_CONFIG', os.environ['TF_CONFIG'], flush=True)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    print('replicas', strategy.num_replicas_in_sync, flush=True)
    weights = fit(strategy)
    if json.loads(os.environ['TF_CONFIG'])['task']['index'] == 0:
        np.save(os.path.join(os.environ['SM_MODEL_DIR'], 'weights.npy'), weights)


if __name__ == '__main__':
    main()
