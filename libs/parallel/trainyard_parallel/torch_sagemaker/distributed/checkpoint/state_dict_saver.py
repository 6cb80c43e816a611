"""Sharded checkpoints by torch.distributed.checkpoint: each rank writes its part; readable at other world sizes."""

import torch.distributed.checkpoint as dcp

from trainyard_parallel.errors import not_available

_running = []


def save(state_dict, *, checkpoint_id=None, storage_writer=None, planner=None, process_group=None, **options):
    """Writes the state dict to the folder `checkpoint_id`; every rank calls it; returns when all parts are written."""
    refuse_s3(checkpoint_id)
    return dcp.save(
        state_dict, checkpoint_id=checkpoint_id, storage_writer=storage_writer, planner=planner, process_group=process_group
    )


def async_save(state_dict, *, checkpoint_id=None, storage_writer=None, planner=None, process_group=None, **options):
    """As `save`, but returns once values are copied; `maybe_finalize_async_calls` reports completion."""
    refuse_s3(checkpoint_id)
    future = dcp.async_save(
        state_dict, checkpoint_id=checkpoint_id, storage_writer=storage_writer, planner=planner, process_group=process_group
    )
    _running.append((max((index for index, _ in _running), default=-1) + 1, future))
    return future


def maybe_finalize_async_calls(blocking=True, process_group=None):
    """Indexes of saves that have ended, oldest first; raises what a save raised. Waits for all when `blocking`."""
    finished = []
    while _running and (blocking or _running[0][1].done()):
        index, future = _running.pop(0)
        future.result()
        finished.append(index)
    return finished


def refuse_s3(checkpoint_id):
    if str(checkpoint_id).startswith("s3://"):
        raise not_available("a checkpoint on S3", "save to a folder, e.g. /opt/ml/checkpoints, which the platform copies")
