"""Imported once by the server that ranks are forked from."""

import contextlib

import torch  # noqa: F401
import torch.distributed.pipelining  # noqa: F401
import torch.distributed.fsdp  # noqa: F401
import torch.distributed.tensor.parallel  # noqa: F401

import smdistributed.modelparallel.torch  # noqa: F401

with contextlib.suppress(ImportError):
    # Seconds for each rank otherwise; tests that need it are skipped where it is not installed.
    import transformers.modeling_utils  # noqa: F401
