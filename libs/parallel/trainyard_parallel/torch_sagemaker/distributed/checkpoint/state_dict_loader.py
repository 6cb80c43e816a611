"""Reads sharded checkpoints into a state dict that exists, whatever its sharding."""

import torch.distributed.checkpoint as dcp

from torch.sagemaker.distributed.checkpoint.filesystem import DistributedFileSystemReader
from torch.sagemaker.distributed.checkpoint.s3_filesystem import S3FileSystem, is_s3_uri


def load(
    state_dict,
    *,
    checkpoint_id=None,
    storage_reader=None,
    planner=None,
    process_group=None,
    check_keys_matched=True,
    s3_region=None,
    s3client_config=None,
    **options,
):
    """Fills the tensors of `state_dict` in place from the folder or S3 prefix `checkpoint_id`; every rank calls it."""
    if storage_reader is None:
        fs = S3FileSystem(s3_region, s3client_config) if is_s3_uri(checkpoint_id) else None
        storage_reader = DistributedFileSystemReader(checkpoint_id, fs)
    return dcp.load(state_dict, storage_reader=storage_reader, planner=planner, process_group=process_group)
