"""Imported once by the server that ranks are forked from."""

import torch  # noqa: F401
import torch.distributed.pipelining  # noqa: F401
import torch.distributed.fsdp  # noqa: F401
import torch.distributed.tensor.parallel  # noqa: F401

import smdistributed.modelparallel.torch  # noqa: F401
