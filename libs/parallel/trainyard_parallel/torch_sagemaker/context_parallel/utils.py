"""`torch.sagemaker.context_parallel.utils`."""

import torch
from torch.sagemaker.state_handler import state

from trainyard_parallel.errors import SMPRuntimeError


def get_batch_for_cp_rank(batch):
    """A tuple of this rank's parts of the tensors [B, sequence, …] of a batch; None stays None.

    A sequence is cut into 2 × context_parallel_degree chunks, which must be equal; rank r takes chunks r and, from the
    end, r.
    """
    size, rank = state.cp_size, state.cp_rank
    if size == 1:
        return tuple(batch)
    parts = []
    for value in batch:
        if value is not None:
            if value.shape[1] % (2 * size):
                raise SMPRuntimeError(
                    f"sequences have {value.shape[1]} tokens, which 2 × context_parallel_degree {size} = {2 * size} must divide"
                )
            chunks = value.chunk(2 * size, 1)
            value = torch.cat([chunks[rank], chunks[2 * size - 1 - rank]], 1)
        parts.append(value)
    return tuple(parts)


def setup_transformer_engine_cp_groups(model, ranks):
    """Nothing to do: attention of transformed models knows its group. Scripts call it for Transformer Engine."""
