"""Sharded checkpoints by torch.distributed.checkpoint: each rank writes its part; readable at other world sizes."""

import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from torch.sagemaker.distributed.checkpoint.async_utils import AsyncCallsQueue
from torch.sagemaker.distributed.checkpoint.filesystem import DistributedFileSystemWriter
from torch.sagemaker.distributed.checkpoint.parts import agree_on_place, parts_of
from torch.sagemaker.distributed.checkpoint.s3_filesystem import S3FileSystem, is_s3_uri
from torch.sagemaker.state_handler import state

_queue = AsyncCallsQueue()


def save(
    state_dict,
    *,
    checkpoint_id=None,
    storage_writer=None,
    planner=None,
    process_group=None,
    coordinator_rank=0,
    wait_error_handling=True,
    force_check_all_plans=True,
    s3_region=None,
    s3client_config=None,
):
    """Writes the state dict to the folder or S3 prefix `checkpoint_id`; every rank of the group calls it; returns when
    all parts are written. A save that is killed leaves what was there before.

    `process_group` is the default group, or one whose ranks hold a whole among themselves: `model.process_group`, or the
    replicas of a shard, whose checkpoint is then that shard's. The group's first rank coordinates. `coordinator_rank`,
    `wait_error_handling` and `force_check_all_plans` have no effect.
    """
    writer = storage_writer or writer_for(checkpoint_id, s3_region, s3client_config)
    agree_on_place(writer.path, process_group)
    return dcp.save(parts_of(state_dict, process_group), storage_writer=writer, planner=planner, process_group=process_group)


def async_save(
    state_dict,
    *,
    checkpoint_id=None,
    storage_writer=None,
    planner=None,
    process_group=None,
    coordinator_rank=0,
    queue=None,
    wait_error_handling=True,
    force_check_all_plans=True,
    s3_region=None,
    s3client_config=None,
):
    """As `save`, but returns once values are copied; `maybe_finalize_async_calls` reports completion, or that of `queue`
    (an AsyncCallsQueue) where one is given.
    """
    writer = storage_writer or writer_for(checkpoint_id, s3_region, s3client_config)
    agree_on_place(writer.path, process_group)
    state_dict, group = parts_of(state_dict, process_group), beside_training(process_group)
    future = dcp.async_save(state_dict, storage_writer=writer, planner=planner, process_group=group)
    (queue or _queue).add(future)
    return future


def maybe_finalize_async_calls(blocking=True, process_group=None):
    """Numbers of saves that have ended, oldest first; raises what a save raised. Waits for all when `blocking`."""
    return _queue.maybe_finalize_async_calls(blocking, process_group)


def beside_training(group):
    """A group of the same ranks for a save's messages, whose thread must not mix them with the training's.

    A group that the script has made is used itself: it made it for this.
    """
    if not dist.is_initialized():
        return None
    return state.save_groups.get(tuple(dist.get_process_group_ranks(group or dist.group.WORLD)), group)


def writer_for(checkpoint_id, region=None, config=None):
    if not is_s3_uri(checkpoint_id):
        return DistributedFileSystemWriter(checkpoint_id)
    return DistributedFileSystemWriter(checkpoint_id, S3FileSystem(region, config), sync_files=False)
