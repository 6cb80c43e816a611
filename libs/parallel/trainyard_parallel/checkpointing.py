"""Activation checkpointing: a module keeps its inputs and is run again in the backward.

Non-reentrant torch.utils.checkpoint inside the module's forward, so it also works where a module is one stage's unit of
a pipeline. A module that is cut over stages is not checkpointed (its parts may be), with a warning; where the user placed
its parts by hand, it is an error.

Members of an nn.Sequential are checkpointed one by one (`each`), N together (`group_N`) or all consecutive members of a
stage together (`contiguous`). Members together form a *segment*, which takes their place as the pipeline's unit.
"""

import re
import warnings

from torch import nn
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from trainyard_parallel import offload
from trainyard_parallel.errors import SMPConfigError
from trainyard_parallel.handle import Handle
from trainyard_parallel.private import tree_flatten, tree_unflatten
from trainyard_parallel.state import state

MARK, STRATEGY = "_smp_checkpointed", "_smp_segments"


def set_activation_checkpointing(module, preserve_rng_state=True, pack_args_as_tuple=False, strategy="each"):
    """Checkpoints the module, or the members of an nn.Sequential or nn.ModuleList.

    `strategy`: `each`, or for an nn.Sequential `contiguous` or `group_N` (N members together, the last group of a stage
    may be smaller). `preserve_rng_state` makes dropout repeat its choices. May be called before or after wrapping the
    model, and twice. Raises SMPConfigError for a strategy that the module cannot have.
    """
    size = group_size(module, strategy)
    if size is not None:
        segment(module, size, preserve_rng_state)
    elif isinstance(module, (nn.Sequential, nn.ModuleList)):
        for member in module:
            wrap(member, preserve_rng_state)
    else:
        wrap(module, preserve_rng_state)


def group_size(module, strategy):
    """Most members of one segment; None: no segments."""
    if strategy == "each":
        return None
    match = re.fullmatch(r"group_([1-9]\d*)", strategy)
    if strategy != "contiguous" and not match:
        raise SMPConfigError(f"strategy is {strategy!r} but must be each, contiguous or group_N with N from 1, as group_2")
    if not isinstance(module, nn.Sequential):
        raise SMPConfigError(
            f"strategy is {strategy!r}, which groups members of an nn.Sequential, but the module is a "
            f"{type(module).__name__}, whose members are called by code between them; use strategy 'each'"
        )
    return int(match[1]) if match else len(module)


def wrap(module, preserve_rng_state):
    if module.__dict__.get(MARK):
        return
    module.__dict__[MARK] = True
    original = module.forward

    def forward(*args, **kwargs):
        leaves, spec = tree_flatten((args, kwargs))
        if any(isinstance(leaf, Handle) for leaf in leaves):
            # Only followed for shapes, or cut over stages.
            return original(*args, **kwargs)
        with offload.around(None if inside.depth else offloader()):
            # Flat, because only tensors that are arguments themselves are kept through hooks.
            return torch_checkpoint(
                nested, original, spec, *leaves, use_reentrant=False, preserve_rng_state=preserve_rng_state
            )

    module.forward = forward


class inside:
    """How many checkpointed forwards are running; what inner ones keep is dropped and made again anyway."""

    depth = 0


def nested(original, spec, *leaves):
    args, kwargs = tree_unflatten(leaves, spec)
    inside.depth += 1
    try:
        return original(*args, **kwargs)
    finally:
        inside.depth -= 1


def offloader():
    return state.model.offloader if state.model is not None else None


class Segment(nn.Module):
    """Consecutive members that are checkpointed together."""

    def __init__(self, members, preserve_rng_state):
        super().__init__()
        self.members = nn.ModuleList(members)
        wrap(self, preserve_rng_state)

    def forward(self, value):
        for member in self.members:
            value = member(value)
        return value


def segment(sequence, size, preserve_rng_state):
    if STRATEGY in sequence.__dict__:
        raise SMPConfigError("an nn.Sequential was given two checkpointing strategies; set one of them")
    # Not registered as modules: names of parameters stay.
    options = sequence.__dict__[STRATEGY] = {"size": size, "preserve": preserve_rng_state, "parts": None}

    def forward(value):
        if options["parts"] is None and not isinstance(value, Handle):
            options["parts"] = cut(sequence, options, lambda member: 0)
        for part in options["parts"] or sequence:
            value = part(value)
        return value

    sequence.forward = forward
    if state.model is not None and state.model.pipeline is not None:
        state.model.plan_again()


def cut(sequence, options, stage_of):
    """Segments of the sequence; a member without a stage of its own (None) goes with those around it."""
    groups, at = [[]], None
    for member in sequence:
        stage = stage_of(member)
        if len(groups[-1]) == options["size"] or None not in (stage, at) and stage != at:
            groups.append([])
            at = None
        groups[-1].append(member)
        at = stage if stage is not None else at
    return [Segment(group, options["preserve"]) for group in groups if group]


def check_cut(model, stage_of, names):
    """Modules that are checkpointed as a whole but lie on several stages: refused if placed by hand, else named."""
    whole = {inner for unit in stage_of for inner in unit.modules()}
    cut = [names[m] for m in model.modules() if MARK in m.__dict__ and m not in whole and has_parameters(m)]
    if not cut:
        return
    said = f"{', '.join(cut)} cannot be checkpointed as a whole: it lies on several stages; checkpoint its parts"
    if not state.cfg.auto_partition:
        raise SMPConfigError(f"{said}, or place all of it on one stage")
    warnings.warn(f"{said} (it runs without checkpointing)", stacklevel=2)


def fuse(model, stage_of, names):
    """(units, names) in which segments take the place of their members, for sequences that are cut over stages."""
    stage_of, names = dict(stage_of), dict(names)
    for sequence in model.modules():
        options = sequence.__dict__.get(STRATEGY)
        # Where the sequence lies on one stage it makes its segments itself.
        if options is None or not all(member in stage_of or not has_parameters(member) for member in sequence):
            continue
        options["parts"] = cut(sequence, options, lambda member: stage_of.get(member))
        for part in options["parts"]:
            at = {stage_of.pop(member) for member in part.members if member in stage_of}
            if at:
                stage_of[part] = at.pop()
                first, last = part.members[0], part.members[-1]
                names[part] = names[first] if first is last else f"{names[first]} to {names[last]}"
    return stage_of, names


def has_parameters(module):
    return next(module.parameters(), None) is not None


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
    if STRATEGY not in seq.__dict__:
        set_activation_checkpointing(seq, preserve_rng_state, pack_args_as_tuple, strategy)
    return seq(input)
