"""Activation checkpointing: a module keeps its inputs and is run again in the backward.

Non-reentrant torch.utils.checkpoint inside the module's forward, so it also works where a module is one stage's unit of
a pipeline. A module that is cut over stages is not checkpointed (its parts may be).
"""

import warnings

from torch import nn
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from trainyard_parallel.errors import not_available
from trainyard_parallel.handle import Handle
from trainyard_parallel.private import tree_flatten

MARK = "_smp_checkpointed"


def set_activation_checkpointing(module, preserve_rng_state=True, pack_args_as_tuple=False, strategy="each"):
    """Checkpoints the module, or each member of an nn.Sequential or nn.ModuleList.

    `preserve_rng_state` makes dropout repeat its choices. May be called before or after wrapping the model, and twice.
    """
    if strategy != "each":
        raise not_available(f"checkpointing strategy {strategy!r}", "use 'each'")
    if isinstance(module, (nn.Sequential, nn.ModuleList)):
        for member in module:
            wrap(member, preserve_rng_state)
    else:
        wrap(module, preserve_rng_state)


def wrap(module, preserve_rng_state):
    if module.__dict__.get(MARK):
        return
    module.__dict__[MARK] = True
    original = module.forward

    def forward(*args, **kwargs):
        if any(isinstance(leaf, Handle) for leaf in tree_flatten((args, kwargs))[0]):
            # Only followed for shapes, or cut over stages.
            return original(*args, **kwargs)
        return torch_checkpoint(original, *args, use_reentrant=False, preserve_rng_state=preserve_rng_state, **kwargs)

    module.forward = forward


def checkpoint(module, *args, preserve_rng_state=True, **kwargs):
    """Calls the module, checkpointed from now on; `module` must be an nn.Module."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"smp.checkpoint got {type(module).__name__}; it needs an nn.Module (checkpointing is by module)")
    wrap(module, preserve_rng_state)
    return module(*args, **kwargs)


def checkpoint_sequential(seq, input, strategy="each", preserve_rng_state=True, pack_args_as_tuple=False):
    """Calls an nn.Sequential whose members are checkpointed from now on."""
    if isinstance(input, tuple) and not pack_args_as_tuple:
        warnings.warn("checkpoint_sequential got a tuple; it is passed to the first member as one argument", stacklevel=2)
    set_activation_checkpointing(seq, preserve_rng_state, pack_args_as_tuple, strategy)
    return seq(input)
