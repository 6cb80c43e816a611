"""From a model to {module: stage}: what the user placed by hand, or the automatic partition."""

import json
import os
from contextlib import contextmanager

from torch import nn

from trainyard_parallel import chain
from trainyard_parallel.errors import SMPConfigError
from trainyard_parallel.partition import Node, partition
from trainyard_parallel.state import state

MARK = "_smp_partition"


@contextmanager
def creation_hook(mark):
    """Calls `mark(module)` for every module that is constructed inside."""
    original = nn.Module.__init__

    def init(self, *args, **kwargs):
        original(self, *args, **kwargs)
        mark(self)

    nn.Module.__init__ = init
    try:
        yield
    finally:
        nn.Module.__init__ = original


def manual_partition(stage):
    """`with smp.partition(1):` — modules created inside go to stage 1; the innermost wins; ignored with auto_partition."""
    check_stage(stage)
    # A nested context wraps the outer hook, so the inner mark is written last.
    return creation_hook(lambda module: module.__dict__.__setitem__(MARK, stage))


def set_partition(module, stage):
    """Places a module that exists already; its children go with it unless placed themselves."""
    check_stage(stage)
    module.__dict__[MARK] = stage


def check_stage(stage):
    if state.cfg is not None and not 0 <= stage < state.cfg.pipeline_parallel_degree:
        raise SMPConfigError(
            f"partition {stage} does not exist; pipeline_parallel_degree is {state.cfg.pipeline_parallel_degree}, "
            "so partitions are numbered from 0 to one less"
        )


def has_parameters(module):
    return next(module.parameters(), None) is not None


def bytes_of(module):
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def module_stages(model, cfg, args, kwargs, device):
    """{module: stage} for every module with parameters."""
    if not cfg.auto_partition:
        return placed_by_hand(model, cfg.default_partition, {})
    if cfg.load_partition:
        return read_partition(model, cfg)
    trace = None if cfg.skip_tracing else chain.trace_costs(model, args, kwargs, device)
    modules = dict(model.named_modules())
    placed = partition(tree(model, "", trace), cfg.pipeline_parallel_degree, cfg.memory_weight)
    if cfg.partition_file and state.process.rank == 0:
        write_partition(cfg, placed)
    return {modules[name]: stage for name, stage in placed.items()}


def write_partition(cfg, placed):
    """Keeps {module name: stage} in `partition_file`, for jobs with `load_partition`."""
    aside = f"{cfg.partition_file}.{os.getpid()}.tmp"
    with open(aside, "w") as file:
        json.dump({"stages": cfg.pipeline_parallel_degree, "modules": placed}, file, indent=1)
    os.replace(aside, cfg.partition_file)


def read_partition(model, cfg):
    """The partition of an earlier job; raises SMPConfigError if it is of other stages or another model."""
    with open(cfg.partition_file) as file:
        saved = json.load(file)
    if saved["stages"] != cfg.pipeline_parallel_degree:
        raise SMPConfigError(
            f"partition_file {cfg.partition_file} has {saved['stages']} stages but pipeline_parallel_degree is "
            f"{cfg.pipeline_parallel_degree}; set load_partition false to partition again"
        )
    modules = {name: module for name, module in model.named_modules() if has_parameters(module)}
    if set(modules) != set(saved["modules"]):
        raise SMPConfigError(
            f"partition_file {cfg.partition_file} is of another model: modules {sorted(set(modules) ^ set(saved['modules']))} "
            "are in one of them only; set load_partition false to partition again"
        )
    return {modules[name]: stage for name, stage in saved["modules"].items()}


def placed_by_hand(module, inherited, stages):
    own = module.__dict__.get(MARK, inherited)
    if has_parameters(module):
        stages[module] = own
    for child in module.children():
        placed_by_hand(child, own, stages)
    return stages


def tree(module, name, trace):
    """The tree of modules with parameters, siblings in order of their first call."""
    children = [
        (tree(child, f"{name}.{key}" if name else key, trace), child)
        for key, child in module.named_children()
        if has_parameters(child)
    ]
    if trace is None:
        compute = 1 + sum(node.compute for node, _ in children)
        return Node(name, bytes_of(module), compute, [node for node, _ in children])
    children.sort(key=lambda pair: first_call(pair[1], trace))
    nodes = [node for node, _ in children]
    # A list of modules is never called itself: it weighs what its members weigh.
    activations = trace.activations.get(module, sum(trace.activations.get(m, 0) for m in module.children()))
    compute = trace.operations.get(module, sum(node.compute for node in nodes))
    return Node(name, bytes_of(module) + activations, compute, nodes)


def first_call(module, trace):
    return min((trace.order[m] for m in module.modules() if m in trace.order), default=len(trace.order))


def units(model, stages):
    """{unit: stage}: the largest modules whose whole subtree lies on one stage."""
    found = {}

    def visit(module):
        if not has_parameters(module):
            return
        is_container = isinstance(module, (nn.ModuleList, nn.ModuleDict))
        inner = {stages[m] for m in module.modules() if m in stages}
        if len(inner) == 1 and not is_container and module is not model:
            found[module] = inner.pop()
            return
        for child in module.children():
            visit(child)

    visit(model)
    return found
