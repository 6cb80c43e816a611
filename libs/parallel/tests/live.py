"""Bytes of live tensors: every storage that an operation inside the context has made and that still exists."""

import weakref

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Live(TorchDispatchMode):
    """`now` bytes are alive, `peak` was the most of `now` less `apart()`, looked at after every operation."""

    def __init__(self, apart=lambda: 0):
        super().__init__()
        self.now, self.peak, self.apart, self.known = 0, 0, apart, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            # A DTensor has no memory of its own; operations on its local tensor are seen too.
            if isinstance(leaf, torch.Tensor) and not isinstance(leaf, DTensor) and leaf.device.type != "meta":
                self.track(leaf.untyped_storage())
        self.peak = max(self.peak, self.now - self.apart())
        return result

    def track(self, storage):
        key = storage._cdata
        if key in self.known:
            return
        size = storage.nbytes()
        self.now += size

        def gone(_):
            self.now -= size
            del self.known[key]

        self.known[key] = weakref.ref(storage, gone)
