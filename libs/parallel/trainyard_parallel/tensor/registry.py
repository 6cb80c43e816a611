"""Which modules are replaced by distributed ones, and with which arguments."""

import functools
import warnings
from dataclasses import dataclass
from typing import Callable

from torch import nn

from trainyard_parallel.huggingface import adapters, families
from trainyard_parallel.placement import MARK as STAGE
from trainyard_parallel.placement import creation_hook
from trainyard_parallel.state import state
from trainyard_parallel.tensor.layers import DistributedEmbedding, DistributedLinear

MARK, ARGUMENTS = "_smp_tensor_parallel", "_smp_arguments"


@dataclass
class Replacement:
    dist_module: type
    init_hook: Callable | None = None
    forward_hook: Callable | None = None
    return_hook: Callable | None = None


registry = {}


def tensor_parallelism(enabled=True, **kwargs):
    """Context or decorator: supported modules created inside are distributed when the model is wrapped.

    The innermost context wins; of nested supported modules the outermost is replaced. Keywords override arguments of
    the distributed module's constructor.
    """
    return creation_hook(lambda module: module.__dict__.__setitem__(MARK, (enabled, kwargs)))


def set_tensor_parallelism(module, enabled=True, **kwargs):
    """Marks a module that exists already, and everything inside it, before the model is wrapped."""
    for inner in module.modules():
        inner.__dict__[MARK] = (enabled, kwargs)


def tp_register_with_module(module_cls, dist_module, init_hook=None, forward_hook=None, return_hook=None):
    """Replaces marked modules of exactly `module_cls` by `dist_module`.

    `init_hook(*args, **kwargs)` and `forward_hook(*args, **kwargs)` get the original call's arguments and return (args,
    kwargs) for the distributed module; `return_hook(result)` maps its result back. Call it before modules are created.
    """
    if ARGUMENTS not in module_cls.__init__.__dict__:
        original = module_cls.__init__

        @functools.wraps(original)
        def init(self, *args, **kwargs):
            self.__dict__.setdefault(ARGUMENTS, (args, kwargs))
            original(self, *args, **kwargs)

        init.__dict__[ARGUMENTS] = True
        module_cls.__init__ = init
    registry[module_cls] = Replacement(dist_module, init_hook, forward_hook, return_hook)


def tp_register(dist_module, init_hook=None, forward_hook=None, return_hook=None):
    """Class decorator of an original module; see tp_register_with_module."""

    def decorate(module_cls):
        tp_register_with_module(module_cls, dist_module, init_hook, forward_hook, return_hook)
        return module_cls

    return decorate


def distribute(model):
    """Replaces marked modules; returns the model (a new one if the model itself is replaced).

    Registered classes and those of transformers are replaced at every degree, as scripts that ask for the distributed
    transformer on one rank expect; plain layers only where there is something to split.
    """
    owners = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(parameter, set()).add(module)
    shared = {module for modules in owners.values() if len(modules) > 1 for module in modules}

    def visit(module, name):
        new = replacement_of(module, name, shared)
        if new is not None:
            if STAGE in module.__dict__:
                new.__dict__[STAGE] = module.__dict__[STAGE]
            return new
        for key, child in list(module.named_children()):
            other = visit(child, f"{name}.{key}" if name else key)
            if other is not child:
                setattr(module, key, other)
        return module

    return visit(model, "")


def replacement_of(module, name, shared):
    enabled, keywords = module.__dict__.get(MARK, (False, {}))
    if not enabled:
        return None
    tp = state.cfg.tensor_parallel_degree
    if type(module) in registry:
        return build(registry[type(module)], module, keywords)
    if families.family_of(module):
        return adapters.replace(module, name, keywords)
    split = {nn.Linear: "in_features", nn.Embedding: "embedding_dim"}.get(type(module))
    if split is None or tp == 1:
        return None
    if module in shared or getattr(module, split) % tp:
        reason = "shares its weight" if module in shared else f"has {split} {getattr(module, split)}, not a multiple of {tp}"
        warnings.warn(f"{name} stays whole: it {reason}", stacklevel=2)
        return None
    if isinstance(module, nn.Linear):
        return DistributedLinear(module.in_features, module.out_features, whole=module)
    return DistributedEmbedding(module.num_embeddings, module.embedding_dim, module.padding_idx, _weight=module.weight.detach())


def build(entry, module, keywords):
    args, kwargs = module.__dict__[ARGUMENTS]
    if entry.init_hook is not None:
        args, kwargs = entry.init_hook(*args, **kwargs)
    new = entry.dist_module(*args, **{**kwargs, **keywords})
    if entry.forward_hook is not None or entry.return_hook is not None:
        original = new.forward

        def forward(*args, **kwargs):
            if entry.forward_hook is not None:
                args, kwargs = entry.forward_hook(*args, **kwargs)
            result = original(*args, **kwargs)
            return entry.return_hook(result) if entry.return_hook is not None else result

        new.forward = forward
    return new
