"""SMDDP's own variables: accepted with their documented rules, and reported where they mean nothing here.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-parallel-extended-features-pytorch-sharded-data-parallelism.html
"""

import os
import warnings

# Sizes of AllGather's two staging areas on GPUs, which SMDDP wants as multiples of 8192. Ours gathers from the tensors
# themselves and through the slots of the shared segment, so no size is too small for any input.
STAGING_SIZES = ("SMDDP_AG_SCRATCH_BUFFER_SIZE_BYTES", "SMDDP_AG_SORT_BUFFER_SIZE_BYTES")
MULTIPLE = 8192


def check_vendor_variables(rank):
    """Raises ValueError for a value that SMDDP refuses; rank 0 warns about values that have no effect."""
    ignored = []
    for name in STAGING_SIZES:
        text = os.environ.get(name)
        if not text:
            continue
        if not text.isdecimal() or int(text) == 0 or int(text) % MULTIPLE != 0:
            raise ValueError(
                f"{name} is {text!r} but must be a positive multiple of {MULTIPLE} bytes; correct or unset it on every rank"
            )
        ignored.append(f"{name}={text}")
    if ignored and rank == 0:
        warnings.warn(
            f"{', '.join(ignored)}: accepted, without effect: AllGather stages no whole input here. "
            "TRAINYARD_COLLECTIVE_SLOT_BYTES sets the block in which data stream through shared memory",
            stacklevel=2,
        )
