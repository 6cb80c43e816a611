"""Every part of PyTorch that is not public and that this library uses; a test fails when one moves."""

import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

# Makes a tensor subclass instance that has a shape and dtype but no storage.
make_wrapper = torch.Tensor._make_wrapper_subclass

# Context in which tensor subclasses are ordinary tensors, so that __torch_function__ may look at them.
without_handles = torch._C.DisableTorchFunctionSubclass

__all__ = ["make_wrapper", "tree_flatten", "tree_map", "tree_unflatten", "without_handles"]
