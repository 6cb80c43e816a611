"""`torch.sagemaker.delayed_param`: a model on the meta device gets its values while FSDP shards it, part by part.

A rank holds its shards and one whole part at a time. Every module draws from a seed of its own, made from the job's
seed and the module's name, so values do not depend on degrees, on what FSDP wraps or in which order. Weights that
tensor parallelism has split are drawn whole and cut.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-parallel-core-features-v2-delayed-param-init.html
"""

import zlib
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.sagemaker.logger import get_logger
from torch.sagemaker.state_handler import state
from torch.sagemaker.utils.module_utils import empty_module_params, move_buffers_to_device

from trainyard_parallel.errors import SMPRuntimeError


class DelayedParamIniter:
    """Made of a model on the meta device, on every rank whose model is there, before FSDP.

    Values come from `init_method_using_config(module)`, called for each module; it must give the module's own
    parameters memory (`empty_module_params`), fill them, and move its buffers (`move_buffers_to_device`). Without it
    Hugging Face models initialise themselves, and other modules by their `reset_parameters`.
    """

    def __init__(self, model, init_method_using_config=None, verbose=False):
        if state.cfg is None:
            raise SMPRuntimeError("DelayedParamIniter was made before tsm.init(); call tsm.init() first")
        self.model, self.method, self.verbose = model, init_method_using_config, verbose
        self.names = {module: name for name, module in model.named_modules()}
        self.expected = sum(parameter.numel() for parameter in model.parameters() if parameter.is_meta)
        self.ties = ties_of(model)
        self.initialised = 0
        self.seed = torch.initial_seed() % 2**62

    def get_param_init_fn(self):
        """For FSDP's `param_init_fn`: gives one module's own parameters and buffers memory and values."""
        return self.initialise

    def get_post_param_init_fn(self):
        """For FSDP's `post_param_init_fn`: ties weights again, by the model's `tie_weights` where it has one."""
        return self.tie

    def initialise(self, module):
        device = state.mesh.device_type
        layouts = {
            name: (parameter.device_mesh, parameter.placements)
            for name, parameter in module.named_parameters(recurse=False)
            if isinstance(parameter, DTensor)
        }
        for name in layouts:
            old = getattr(module, name)
            whole = torch.empty(old.shape, dtype=old.dtype, device="meta")
            setattr(module, name, nn.Parameter(whole, requires_grad=old.requires_grad))
        names = [name for name, parameter in module.named_parameters(recurse=False) if parameter.is_meta]
        with torch.random.fork_rng([torch.cuda.current_device()] if device == "cuda" else []), torch.no_grad():
            torch.manual_seed(self.seed_of(module))
            if self.method is not None:
                self.method(module)
            else:
                empty_module_params(module, device)
                move_buffers_to_device(module, device)
                self.fill(module)
        for name, (mesh, placements) in layouts.items():
            # Every rank has drawn the same values.
            cut = distribute_tensor(getattr(module, name).detach(), mesh, placements, src_data_rank=None)
            setattr(module, name, nn.Parameter(cut, requires_grad=getattr(module, name).requires_grad))
        self.count_num_params(module, *(getattr(module, name) for name in names))

    def seed_of(self, module):
        return (self.seed + zlib.crc32(self.names.get(module, type(module).__name__).encode())) % 2**63

    def fill(self, module):
        if hasattr(self.model, "_init_weights"):
            self.model._init_weights(module)
        elif hasattr(module, "reset_parameters"):
            module.reset_parameters()
        elif list(module.parameters(recurse=False)):
            raise SMPRuntimeError(
                f"{self.names.get(module)} ({type(module).__name__}) has parameters of its own but no reset_parameters; give "
                "DelayedParamIniter an init_method_using_config"
            )

    def count_num_params(self, module, *params):
        """Notes that these parameters of the module have their values."""
        self.initialised += sum(parameter.numel() for parameter in params)
        if self.verbose:
            get_logger().info("%s: %d parameters", self.names.get(module, module), sum(p.numel() for p in params))

    def tie(self, module):
        if hasattr(module, "tie_weights"):
            module.tie_weights()
        for (first, name), *others in self.ties:
            for other, key in others:
                setattr(other, key, getattr(first, name))

    @contextmanager
    def validate_params_and_buffers_inited(self, enabled=True):
        """Checks at the end that every parameter got its values, once, and nothing is left on the meta device.

        Raises AssertionError.
        """
        self.initialised = 0
        yield
        if not enabled:
            return
        left = [name for name, t in [*self.model.named_parameters(), *self.model.named_buffers()] if t.is_meta]
        if left:
            raise AssertionError(f"{', '.join(left)} are on the meta device still; pass get_param_init_fn() to FSDP as param_init_fn")
        again = sum(getattr(module, key).numel() for _, *others in self.ties for module, key in others)
        if self.initialised not in (self.expected, self.expected + again):
            raise AssertionError(
                f"{self.initialised} elements of parameters were initialised but {self.expected} were on the meta device; "
                "init_method_using_config must handle each module's own parameters once"
            )


def agree_on_seed(param_init_fn):
    """All ranks draw from rank 0's seed: parts of a tensor come from several ranks. Every rank calls it."""
    initer = getattr(param_init_fn, "__self__", None)
    if isinstance(initer, DelayedParamIniter):
        seed = torch.tensor(initer.seed, device=state.mesh.device_type)
        dist.broadcast(seed, 0)
        initer.seed = seed.item()


def ties_of(model):
    """[(module, name), …] of each parameter that several modules share."""
    owners = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            owners.setdefault(parameter, []).append((module, name))
    return [found for found in owners.values() if len(found) > 1]


def has_meta(module):
    """Whether the module's own parameters or buffers are without memory."""
    return any(t.is_meta for t in [*module.parameters(recurse=False), *module.buffers(recurse=False)])


def materialize(module, param_init_fn):
    """Gives everything inside that has no memory its values; a module that has them is left alone."""
    for part in module.modules():
        if has_meta(part):
            param_init_fn(part)
            if has_meta(part):
                raise SMPRuntimeError(f"param_init_fn left parameters of {type(part).__name__} on the meta device; allocate them in it")
