"""DistributedDataParallel of versions 1.0 to 1.3, deprecated since 1.4."""

import warnings
from contextlib import nullcontext

import torch
from torch.nn.parallel import DistributedDataParallel as _TorchDDP

import smdistributed.dataparallel.torch.distributed as dist


class DistributedDataParallel(_TorchDDP):
    """torch's class with the arguments of versions 1.x.

    `gradient_accumulation_steps` (before 1.4) synchronises only in every k-th
    backward pass. All ranks must make the model alike.
    """

    def __init__(
        self,
        module,
        device_ids=None,
        output_device=None,
        broadcast_buffers=True,
        process_group=None,
        bucket_cap_mb=None,
        gradient_accumulation_steps=None,
        **kwargs,
    ):
        warnings.warn(
            "smdistributed.dataparallel.torch.parallel.DistributedDataParallel is deprecated since version 1.4: use "
            "torch.nn.parallel.DistributedDataParallel with backend 'smddp'",
            DeprecationWarning,
            stacklevel=2,
        )
        if not dist.is_initialized():
            dist.init_process_group()
        super().__init__(
            module,
            device_ids=device_ids,
            output_device=output_device,
            broadcast_buffers=broadcast_buffers,
            process_group=process_group,
            bucket_cap_mb=25 if bucket_cap_mb is None else bucket_cap_mb,
            **kwargs,
        )
        self._accumulation_steps = gradient_accumulation_steps or 1
        self._forward_passes = 0

    def forward(self, *inputs, **kwargs):
        if not torch.is_grad_enabled() or self._accumulation_steps == 1:
            return super().forward(*inputs, **kwargs)
        self._forward_passes += 1
        last = self._forward_passes % self._accumulation_steps == 0
        # no_sync decides in forward whether this pass's backward synchronises.
        with nullcontext() if last else self.no_sync():
            return super().forward(*inputs, **kwargs)
