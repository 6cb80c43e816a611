"""TensorFlow is not supported: SageMaker's library ended with TensorFlow 2.11."""

raise ImportError(
    "smdistributed.dataparallel.tensorflow is not provided: the library ended with TensorFlow 2.11; "
    "use tf.distribute.MultiWorkerMirroredStrategy"
)
