"""Activation offloading of version 2: `offload_wrapper(model)` around layers under `checkpoint_wrapper`.

torch's wrapper copies while the computation waits. In a job with `sm_activation_offloading` its class copies ahead
instead (see offload.py), wherever a script has imported it from and whenever. Only what gradients flow to is moved:
inputs of checkpointed layers, and results of layers without checkpointing.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-parallel-core-features-v2-pytorch-activation-offloading.html
"""

import functools

import torch
from torch.sagemaker.state_handler import state

from trainyard_parallel.offload import Offloader
from trainyard_parallel.private import OffloadWrapper

OFFLOADER = "_sm_offloader"


def install():
    """Changes torch's class, once; without a job or with sm_activation_offloading false it does what it did."""
    if hasattr(OffloadWrapper.forward, "__wrapped__"):
        return
    original = OffloadWrapper.forward

    @functools.wraps(original)
    def forward(self, *args, **kwargs):
        if state.cfg is None or not state.sm_activation_offloading:
            return original(self, *args, **kwargs)
        if OFFLOADER not in self.__dict__:
            self.__dict__[OFFLOADER] = Offloader(torch.device(state.mesh.device_type), state.cfg.activation_loading_horizon)
        offloader = self.__dict__[OFFLOADER]
        offloader.begin_task()
        with offloader.around():
            return self._checkpoint_wrapped_module(*args, **kwargs)

    OffloadWrapper.forward = forward
