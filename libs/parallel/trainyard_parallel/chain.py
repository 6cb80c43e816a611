"""Runs of a model that is cut into a chain of stages. See handle.py for the words.

A *plan* is made by following the whole model on meta tensors, on every rank and without a message: it holds the order
of unit calls, their outputs' shapes, and which handles *cross* each boundary between stages. A *pass* is one stage's
part of one micro-batch: units of earlier stages are skipped, received tensors become the values of their handles, own
units run, and the pass ends at the first call of a unit of a later stage.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from trainyard_parallel.errors import SMPUnsupportedPlacement
from trainyard_parallel.handle import SIMPLE, Handle, map_leaves, to_meta, unwrap, wrap
from trainyard_parallel.private import tree_flatten, tree_unflatten


class Cut(Exception):
    """Control has reached a later stage: this rank's pass is complete."""


@contextmanager
def instrument(modules, wrapper):
    """Calls of each module's forward go to `wrapper(module, forward, args, kwargs)`."""

    def replace(module):
        original = module.forward
        module.forward = lambda *args, **kwargs: wrapper(module, original, args, kwargs)

    had = {module: module.__dict__.get("forward") for module in modules}
    try:
        for module in modules:
            replace(module)
        yield
    finally:
        for module, forward in had.items():
            if forward is None:
                module.__dict__.pop("forward", None)
            else:
                module.forward = forward


@contextmanager
def untouched(model):
    """What following the model on meta tensors may change is put back: generators and buffers."""
    rng = torch.get_rng_state()
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers() if not buffer.is_meta]
    try:
        yield
    finally:
        torch.set_rng_state(rng)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


class Run:
    """Numbers handles; what happens inside a unit is not numbered."""

    def __init__(self, device):
        self.device = device
        self.stage = 0
        self.inside = 0
        self.handles = []

    def number(self, handle):
        if self.inside:
            return None, self.stage
        self.handles.append(handle)
        return len(self.handles) - 1, self.stage

    def use(self, *structures):
        pass

    def account(self, func, args, result):
        pass

    # Whether operations without values are looked up in a plan.
    is_planned = False

    def did(self, handles, result):
        """Composite code has called an operation whose arguments contain `handles`."""


class CostTrace(Run):
    """Follows the model and weighs every module: order of first calls, activation bytes and operations."""

    MULTIPLY = {torch.nn.functional.linear, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm}

    def __init__(self, device):
        super().__init__(device)
        self.inside = 1
        self.stack, self.order, self.activations, self.operations = [], {}, {}, {}

    def account(self, func, args, result):
        outputs = [leaf for leaf in tree_flatten(result)[0] if isinstance(leaf, torch.Tensor)]
        elements = sum(out.numel() for out in outputs)
        inputs = [leaf for leaf in tree_flatten(args)[0] if isinstance(leaf, torch.Tensor)]
        operations = 2 * elements * inputs[0].shape[-1] if func in self.MULTIPLY and inputs[0].dim() else elements
        for module in self.stack:
            self.activations[module] += sum(out.numel() * out.element_size() for out in outputs)
            self.operations[module] += operations

    def __call__(self, module, forward, args, kwargs):
        self.order.setdefault(module, len(self.order))
        self.activations.setdefault(module, 0)
        self.operations.setdefault(module, 0)
        self.stack.append(module)
        try:
            if any(True for _ in module.parameters(recurse=False)):
                args, kwargs = as_handles(self, args), as_handles(self, kwargs)
            return forward(*args, **kwargs)
        finally:
            self.stack.pop()


def as_handles(run, structure):
    return map_leaves(
        lambda leaf: wrap(run, to_meta(leaf)) if isinstance(leaf, torch.Tensor) and not isinstance(leaf, Handle) else leaf,
        structure,
    )


def trace_costs(model, args, kwargs, device):
    run = CostTrace(device)
    with untouched(model), instrument(list(model.modules()), run), torch.enable_grad():
        model(*args, **kwargs)
    return run


@dataclass(frozen=True)
class New:
    number: int


@dataclass(frozen=True)
class Operand:
    index: int


class Plan(Run):
    """The order of unit calls and what crosses each boundary, for one shape of inputs."""

    def __init__(self, device, stage_of, names, stages):
        super().__init__(device)
        self.stage_of, self.names, self.stages = stage_of, names, stages
        self.calls, self.outputs = [], []
        self.result = None
        # By the user's function: what a trial of it has shown (pipeline.py), and what its results need (results.py).
        self.probed, self.agreed = {}, {}
        self.last_use = {}
        self.parameter_stages = {}
        # What each operation of composite code gave: leaves and their structure. A leaf is a New handle, an Operand or
        # a plain value.
        self.operations = []

    def did(self, handles, result):
        if self.inside:
            return
        operands = {id(handle): index for index, handle in enumerate(handles)}
        given, spec = tree_flatten(result)
        self.operations.append(
            (
                [
                    (Operand(operands[id(leaf)]) if id(leaf) in operands else New(leaf.number))
                    if isinstance(leaf, Handle)
                    else leaf
                    for leaf in given
                ],
                spec,
            )
        )

    def use(self, *structures):
        if self.inside:
            return
        for leaf in tree_flatten(structures)[0]:
            if isinstance(leaf, Handle):
                self.last_use[leaf.number] = self.stage
            elif isinstance(leaf, nn.Parameter):
                self.parameter_stages.setdefault(leaf, set()).add(self.stage)

    def __call__(self, unit, forward, args, kwargs):
        stage = self.stage_of[unit]
        if stage < self.stage:
            before = [name for name, at in self.calls if at == self.stage]
            raise SMPUnsupportedPlacement(
                f"{self.names[unit]} is on stage {stage} but is called after {before[-1]} on stage {self.stage}; modules "
                "must run as a chain of stages (arbitrary placement is not available yet): put "
                f"{self.names[unit]} on stage {self.stage} or later, or let auto_partition choose"
            )
        self.stage = stage
        self.use(args, kwargs)
        for parameter in unit.parameters():
            self.parameter_stages.setdefault(parameter, set()).add(stage)
        self.inside += 1
        try:
            result = forward(*as_handles(self, args), **as_handles(self, kwargs))
        finally:
            self.inside -= 1
        self.calls.append((self.names[unit], stage))
        leaves, spec = tree_flatten(result)
        metas = [to_meta(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        self.outputs.append((metas, spec))
        return skipped(self, metas, spec)


def skipped(run, metas, spec):
    """Fresh handles without values for a unit's outputs."""
    return tree_unflatten([Handle(run, meta) if isinstance(meta, torch.Tensor) else meta for meta in metas], spec)


def make_plan(model, stage_of, names, stages, args, kwargs, device):
    plan = Plan(device, stage_of, names, stages)
    with untouched(model), instrument(list(stage_of), plan), torch.enable_grad():
        result = model(*args, **kwargs)
    plan.use(result)
    missing = sorted(set(range(stages)) - {stage for _, stage in plan.calls})
    if missing:
        raise SMPUnsupportedPlacement(
            f"no module runs on stage {missing[0]} of {stages}; the model has {len(plan.calls)} parts in a chain "
            f"({', '.join(name for name, _ in plan.calls)}): lower pipeline_parallel_degree or place modules there"
        )
    plan.result = result
    # crossing[s]: handles made on stage ≤ s and used later; they go from stage s to s + 1, in this order.
    plan.crossing = [
        [h for h in plan.handles if h.stage <= boundary < plan.last_use.get(h.number, -1)] for boundary in range(stages - 1)
    ]
    # The graph of meta tensors is not needed any more.
    for handle in plan.handles:
        handle.meta = handle.meta.detach().requires_grad_(handle.meta.requires_grad)
    return plan


class Pass(Run):
    """One stage's part of one micro-batch."""

    def __init__(self, plan, own, received):
        super().__init__(plan.device)
        self.plan, self.own, self.received, self.call, self.operation = plan, own, received, 0, 0

    is_planned = True

    def did(self, handles, result):
        self.operation += 1

    def planned(self, handles):
        """The result of the next operation, without values."""
        given, spec = self.plan.operations[self.operation]
        self.operation += 1
        return tree_unflatten([self.again(leaf, handles) for leaf in given], spec)

    def again(self, leaf, handles):
        if isinstance(leaf, New):
            return Handle(self, self.plan.handles[leaf.number].meta)
        return handles[leaf.index] if isinstance(leaf, Operand) else leaf

    def __call__(self, unit, forward, args, kwargs):
        stage = self.plan.stage_of[unit]
        if stage > self.own:
            raise Cut
        if stage == self.own and self.stage < self.own:
            self.begin()
        self.stage = stage
        metas, spec = self.plan.outputs[self.call]
        self.call += 1
        if stage < self.own:
            return skipped(self, metas, spec)
        result = forward(*map_leaves(unwrap, args), **map_leaves(unwrap, kwargs))
        return map_leaves(lambda leaf: wrap(self, leaf) if isinstance(leaf, torch.Tensor) else leaf, result)

    def begin(self):
        for handle, value in zip(self.plan.crossing[self.own - 1], self.received):
            self.handles[handle.number].value = value

    def execute(self, model, args, kwargs):
        """The tensors for the next stage, or on the last stage the model's result; the plan's units must call this pass."""
        try:
            return map_leaves(unwrap, model(*args, **kwargs))
        except Cut:
            return tuple(unwrap(self.handles[handle.number]) for handle in self.plan.crossing[self.own])
