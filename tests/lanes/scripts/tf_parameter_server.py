"""ParameterServerStrategy from TF_CONFIG, with the chief as coordinator: fits y = 3 x and checks the slope."""

import argparse
import json
import os

os.environ.setdefault('TF_USE_LEGACY_KERAS', '1')
import tensorflow as tf

argparse.ArgumentParser().parse_known_args()
cluster = json.loads(os.environ['TF_CONFIG'])
task = cluster['task']
print('TF_CONFIG ' + os.environ['TF_CONFIG'], flush=True)
# SageMaker names the first worker `master`; ParameterServerStrategy calls it `chief`.
spec = {('chief' if role == 'master' else role): hosts for role, hosts in cluster['cluster'].items()}
role = 'chief' if task['type'] == 'master' else task['type']
resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
    tf.train.ClusterSpec(spec), task_type=role, task_id=task['index'], rpc_layer='grpc')

if role in ('worker', 'ps'):
    server = tf.distribute.Server(resolver.cluster_spec(), job_name=role, task_index=task['index'], protocol='grpc', start=True)
    print('RESULT ' + json.dumps({'role': role, 'index': task['index']}), flush=True)
    server.join()

strategy = tf.distribute.ParameterServerStrategy(resolver)
with strategy.scope():
    weight = tf.Variable(0.0)
coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)


@tf.function
def step():
    x = tf.random.uniform([16])
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((weight * x - 3.0 * x) ** 2)
    weight.assign_sub(0.5 * tape.gradient(loss, weight))
    return loss


for _ in range(80):
    coordinator.schedule(step)
coordinator.join()
slope = float(weight.numpy())
with open(os.path.join(os.environ['SM_MODEL_DIR'], 'slope.txt'), 'w') as file:
    file.write(str(slope))
print('RESULT ' + json.dumps({'role': role, 'slope': round(slope, 3), 'on': weight.device}), flush=True)
