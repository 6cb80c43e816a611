"""tf.estimator under parameter servers, as scripts of TensorFlow 1 and 2 up to 2.15 do it: fits y = 3 x, the master evaluates.

The servers write their part of each checkpoint themselves, so its folder is one that all hosts share."""

import argparse
import json
import os

import tensorflow as tf

argparse.ArgumentParser().parse_known_args()
task = json.loads(os.environ['TF_CONFIG'])['task']


def data():
    x = tf.random.stateless_uniform([64, 1], seed=(1, 2))
    return tf.data.Dataset.from_tensor_slices((x, 3 * x)).repeat().batch(16)


def model(features, labels, mode):
    weight = tf.compat.v1.get_variable('weight', [1, 1])
    loss = tf.reduce_mean((features @ weight - labels) ** 2)
    optimizer = tf.compat.v1.train.GradientDescentOptimizer(0.3)
    train = optimizer.minimize(loss, global_step=tf.compat.v1.train.get_or_create_global_step())
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train)


estimator = tf.estimator.Estimator(model, model_dir=os.path.join(os.environ['SM_CHANNEL_SHARED'], 'model'))
tf.estimator.train_and_evaluate(
    estimator,
    tf.estimator.TrainSpec(data, max_steps=150),
    tf.estimator.EvalSpec(data, steps=2, start_delay_secs=0, throttle_secs=0),
)
result = {'type': task['type']}
if task['type'] == 'master':
    result['loss'] = float(estimator.evaluate(data, steps=2)['loss'])
print('RESULT ' + json.dumps(result), flush=True)
