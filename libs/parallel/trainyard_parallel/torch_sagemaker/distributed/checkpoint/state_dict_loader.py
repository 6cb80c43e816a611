"""Reads sharded checkpoints into a state dict that exists, whatever its sharding."""

import torch.distributed.checkpoint as dcp


def load(
    state_dict, *, checkpoint_id=None, storage_reader=None, planner=None, process_group=None, check_keys_matched=True, **options
):
    """Fills the tensors of `state_dict` in place from the folder `checkpoint_id`; every rank calls it."""
    return dcp.load(
        state_dict, checkpoint_id=checkpoint_id, storage_reader=storage_reader, planner=planner, process_group=process_group
    )
