"""Keras on several workers with MultiWorkerMirroredStrategy.

The strategy reads who takes part from TF_CONFIG, which the launcher sets. Every worker runs the same program; the
first is the chief and writes the model. Keras 3 does not train under this strategy, so the script asks for Keras 2.
"""

import argparse
import json
import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow as tf

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=8)
parser.add_argument("--batch-size", type=int, default=64, help="images per step of all workers together")
parser.add_argument("--train", default=os.environ.get("SM_CHANNEL_TRAIN"))
parser.add_argument("--model-dir", default=os.environ.get("SM_MODEL_DIR"))
arguments, _ = parser.parse_known_args()

strategy = tf.distribute.MultiWorkerMirroredStrategy()
task = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {"type": "worker", "index": 0})
is_chief = task["type"] in ("chief", "master") or (task["type"] == "worker" and task["index"] == 0)

rows = np.loadtxt(os.path.join(arguments.train, "digits.csv.gz"), delimiter=",", dtype=np.int64)
rows = rows[np.random.default_rng(0).permutation(len(rows))]
images_NF, labels_N = (rows[:, :-1] / 16).astype(np.float32), rows[:, -1]
test_count = len(rows) // 6
data = tf.data.Dataset.from_tensor_slices((images_NF[test_count:], labels_N[test_count:]))
options = tf.data.Options()
options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
data = data.shuffle(2000, seed=1).batch(arguments.batch_size, drop_remainder=True).with_options(options)

tf.random.set_seed(1)
with strategy.scope():
    model = tf.keras.Sequential(
        [tf.keras.layers.Dense(256, activation="relu", input_shape=(64,)), tf.keras.layers.Dense(10)]
    )
    model.compile(
        optimizer=tf.keras.optimizers.legacy.Adam(3e-3),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
history = model.fit(data, epochs=arguments.epochs, verbose=0)
if is_chief:
    loss = history.history["loss"][-1]
    accuracy = (np.argmax(model(images_NF[:test_count]).numpy(), axis=1) == labels_N[:test_count]).mean()
    print(f"{strategy.num_replicas_in_sync} workers: loss={loss:.4f} accuracy={accuracy:.4f}", flush=True)
    model.save_weights(os.path.join(arguments.model_dir, "weights.h5"))
