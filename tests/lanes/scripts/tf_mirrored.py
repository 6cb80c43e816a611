"""MultiWorkerMirroredStrategy from TF_CONFIG: a sum over workers, and Keras 2's fit."""

import argparse
import json
import os

os.environ['TF_USE_LEGACY_KERAS'] = '1'
import tensorflow as tf

argparse.ArgumentParser().parse_known_args()
strategy = tf.distribute.MultiWorkerMirroredStrategy()
task = json.loads(os.environ['TF_CONFIG'])['task']
replicas = strategy.num_replicas_in_sync


@tf.function
def total():
    def each():
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.constant(float(task['index'] + 1)))
    return strategy.run(each)


summed = float(strategy.experimental_local_results(total())[0])
with strategy.scope():
    model = tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(1,))])
    model.compile(optimizer=tf.keras.optimizers.SGD(0.1), loss='mse')
x = tf.random.stateless_uniform([64, 1], seed=(1, 2))
history = model.fit(tf.data.Dataset.from_tensor_slices((x, 3 * x)).batch(16).repeat(), steps_per_epoch=20, epochs=2, verbose=0)
losses = history.history['loss']
print('RESULT ' + json.dumps({'index': task['index'], 'replicas': replicas, 'sum': summed, 'loss': losses[-1],
                              'fell': losses[-1] < losses[0]}), flush=True)
