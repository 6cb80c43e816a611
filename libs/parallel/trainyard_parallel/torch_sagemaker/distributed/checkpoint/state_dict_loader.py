"""Reads sharded checkpoints into a state dict that exists, whatever its sharding."""

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import DefaultLoadPlanner

from torch.sagemaker.distributed.checkpoint.filesystem import DistributedFileSystemReader
from torch.sagemaker.distributed.checkpoint.parts import keep_values, parts_of
from torch.sagemaker.distributed.checkpoint.s3_filesystem import S3FileSystem, is_s3_uri


def load(
    state_dict,
    *,
    checkpoint_id=None,
    storage_reader=None,
    planner=None,
    process_group=None,
    check_keys_matched=True,
    coordinator_rank=0,
    s3_region=None,
    s3client_config=None,
):
    """Fills `state_dict` in place from the folder or S3 prefix `checkpoint_id`; every rank of the group calls it.

    `process_group` is the one that saved, or another that holds the same whole. What the checkpoint lacks raises, or
    stays as it is where `check_keys_matched` is false. `coordinator_rank` has no effect.
    """
    if storage_reader is None:
        fs = S3FileSystem(s3_region, s3client_config) if is_s3_uri(checkpoint_id) else None
        storage_reader = DistributedFileSystemReader(checkpoint_id, fs)
    planner = planner or DefaultLoadPlanner(allow_partial_load=not check_keys_matched)
    parts = parts_of(state_dict, process_group)
    dcp.load(parts, storage_reader=storage_reader, planner=planner, process_group=process_group)
    if parts is not state_dict:
        keep_values(state_dict, parts)
