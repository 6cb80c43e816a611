"""Sharded checkpoints by torch.distributed.checkpoint: each rank writes its part; readable at other world sizes."""

import torch.distributed.checkpoint as dcp

from torch.sagemaker.distributed.checkpoint.filesystem import DistributedFileSystemWriter
from torch.sagemaker.distributed.checkpoint.s3_filesystem import S3FileSystem, is_s3_uri

_running = []


def save(
    state_dict,
    *,
    checkpoint_id=None,
    storage_writer=None,
    planner=None,
    process_group=None,
    s3_region=None,
    s3client_config=None,
    **options,
):
    """Writes the state dict to the folder or S3 prefix `checkpoint_id`; every rank calls it; returns when all parts are
    written. A save that is killed leaves what was there before.
    """
    writer = storage_writer or writer_for(checkpoint_id, s3_region, s3client_config)
    return dcp.save(state_dict, storage_writer=writer, planner=planner, process_group=process_group)


def async_save(
    state_dict,
    *,
    checkpoint_id=None,
    storage_writer=None,
    planner=None,
    process_group=None,
    s3_region=None,
    s3client_config=None,
    **options,
):
    """As `save`, but returns once values are copied; `maybe_finalize_async_calls` reports completion."""
    writer = storage_writer or writer_for(checkpoint_id, s3_region, s3client_config)
    future = dcp.async_save(state_dict, storage_writer=writer, planner=planner, process_group=process_group)
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


def writer_for(checkpoint_id, region=None, config=None):
    if not is_s3_uri(checkpoint_id):
        return DistributedFileSystemWriter(checkpoint_id)
    return DistributedFileSystemWriter(checkpoint_id, S3FileSystem(region, config), sync_files=False)
