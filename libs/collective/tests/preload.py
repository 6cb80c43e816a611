"""Imported once by the server that the tests' ranks are forked from.

torch, but not the backend: threads and sockets must not be forked.
"""

import warnings

import torch  # noqa: F401
import torch.distributed  # noqa: F401
import torch.distributed.fsdp  # noqa: F401
import torch.distributed.tensor  # noqa: F401

# torch 2.13 renamed the *_into_tensor and *_tensor forms; scripts of today use
# the names before.
warnings.filterwarnings("ignore", category=FutureWarning)
