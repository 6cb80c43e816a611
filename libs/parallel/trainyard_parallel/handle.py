"""Tensors that a rank may not have: how every rank can run the same forward of a model that is cut into stages.

A *handle* stands for a tensor of the model's forward. It always knows shape and dtype (a meta tensor) and, on the
ranks that computed or received it, its *value*. All ranks run the Python code of the modules that are cut (the
*composite* modules) over handles: an operation whose operands all have values is computed, any other is only followed
on meta tensors. Modules that lie on one stage as a whole (*units*) run on that stage and are skipped elsewhere.
Operations on the model's inputs alone (masks, position ids) involve no handle and are computed by every rank.

Handles are numbered in the order in which composite code makes them; since that code is the same on all ranks, a
number names the same tensor everywhere. Following on meta tensors costs Python time, so it is done once, for the plan;
later runs look up what an operation gave there.
"""

import torch

from trainyard_parallel.private import make_wrapper, tree_map, without_handles

SIMPLE = frozenset((int, float, bool, str, type(None), torch.dtype, torch.device))

DEVICE = torch.Tensor.device.__get__


class Handle(torch.Tensor):
    @staticmethod
    def __new__(cls, run, meta, value=None):
        like = meta if value is None else value
        return make_wrapper(cls, like.shape, dtype=like.dtype, device=run.device)

    def __init__(self, run, meta, value=None):
        self.run, self._meta, self.value = run, meta, value
        self.number, self.stage = run.number(self)

    @property
    def meta(self):
        with without_handles():
            if self._meta is None:
                self._meta = to_meta(self.value)
            return self._meta

    @meta.setter
    def meta(self, meta):
        self._meta = meta

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        with without_handles():
            handles = []
            map_leaves(lambda leaf: handles.append(leaf) if isinstance(leaf, Handle) else None, (args, kwargs or {}))
            run = handles[0].run
            if func == DEVICE:
                return run.device
            has_values = all(handle.value is not None for handle in handles)
            if not has_values and run.is_planned:
                return run.planned(handles)
            run.use(args, kwargs)
            operand = value_of if has_values else to_meta
            result = func(*map_leaves(operand, args), **map_leaves(operand, kwargs or {}))
            run.account(func, args, result)
            # An operation in place gives back its operand, which keeps its handle.
            known = {id(operand(handle)): handle for handle in handles}
            result = map_leaves(
                lambda leaf: (known[id(leaf)] if id(leaf) in known else wrap(run, leaf))
                if isinstance(leaf, torch.Tensor)
                else leaf,
                result,
            )
            run.did(handles, result)
            return result

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} reached a tensor of another pipeline stage; use it through torch's functions")

    def __repr__(self):
        return f"Handle({self.number}, {tuple(self.meta.shape)}, {'here' if self.value is not None else 'elsewhere'})"


def map_leaves(fn, structure):
    """As tree_map, several times faster on tuples, lists and dictionaries of tensors and plain values."""
    kind = type(structure)
    if isinstance(structure, torch.Tensor) or kind in SIMPLE:
        return fn(structure)
    if kind is tuple:
        return tuple([map_leaves(fn, item) for item in structure])
    if kind is list:
        return [map_leaves(fn, item) for item in structure]
    if kind is dict:
        return {key: map_leaves(fn, item) for key, item in structure.items()}
    return tree_map(fn, structure)


def value_of(leaf):
    return leaf.value if isinstance(leaf, Handle) else leaf


def wrap(run, tensor):
    return Handle(run, tensor) if tensor.is_meta else Handle(run, None, tensor)


def to_meta(leaf):
    """A meta tensor in place of a tensor, the meta device in place of a device; other values as they are."""
    if isinstance(leaf, Handle):
        return leaf.meta
    if isinstance(leaf, torch.Tensor):
        return leaf if leaf.is_meta else torch.empty_like(leaf, device="meta").requires_grad_(leaf.requires_grad)
    if isinstance(leaf, torch.device) or isinstance(leaf, str) and leaf.split(":")[0] in ("cpu", "cuda"):
        return torch.device("meta")
    return leaf


def unwrap(leaf):
    if isinstance(leaf, Handle):
        if leaf.value is None:
            raise RuntimeError(f"{leaf!r} is needed on this stage but was not sent to it; this is a defect of the library")
        return leaf.value
    return leaf
