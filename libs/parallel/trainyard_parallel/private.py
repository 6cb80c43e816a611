"""Every part of PyTorch that is not public and that this library uses; a test fails when one moves."""

from types import SimpleNamespace

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import OffloadWrapper
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler
from torch.utils._python_dispatch import TorchDispatchMode as DispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

# Functions of torch.nn.init that look at values, or do nothing to meta tensors.
INITIALISERS = ("_no_grad_trunc_normal_", "orthogonal_", "sparse_", "dirac_")

# Makes a tensor subclass instance that has a shape and dtype but no storage.
make_wrapper = torch.Tensor._make_wrapper_subclass

# Context in which tensor subclasses are ordinary tensors, so that __torch_function__ may look at them.
without_handles = torch._C.DisableTorchFunctionSubclass


class ModelGradScaler(ShardedGradScaler):
    """A scaler that unscales what `gradients(optimizer)` lists, instead of the optimizer's own parameters' gradients."""

    def _unscale_grads_(self, optimizer, *args, **kwargs):
        # Tensors whose own .grad is theirs to unscale: local parts, as the kernel knows no DTensor.
        parts = [SimpleNamespace(grad=getattr(g, "to_local", lambda g=g: g)()) for g in self.gradients(optimizer)]
        return super()._unscale_grads_(SimpleNamespace(param_groups=[{"params": parts}]), *args, **kwargs)


def initialisers():
    """{name in torch.nn.init: function} of those that delayed parameters record as a whole."""
    return {name: getattr(torch.nn.init, name) for name in INITIALISERS}


__all__ = ["DispatchMode", "FakeTensorMode", "ModelGradScaler", "OffloadWrapper", "initialisers", "make_wrapper", "tree_flatten", "tree_map", "tree_unflatten", "without_handles"]
