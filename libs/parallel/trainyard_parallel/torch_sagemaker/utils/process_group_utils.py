"""`torch.sagemaker.utils.process_group_utils`."""

import torch.distributed as dist


def get_global_ranks(process_group):
    """Global ranks of a group's members, in the order of their ranks inside it."""
    return dist.get_process_group_ranks(process_group)
