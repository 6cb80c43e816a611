"""torch's own FullyShardedDataParallel class in a job of this library.

Scripts import the class from torch.distributed.fsdp, before or after this library, so the class itself is changed while
a job is initialised: its constructor gives what `torch.sagemaker.fsdp` gives, an FSDP2 module, and its state-dict
functions work on that. Outside of a job it is torch's own.

| script | here |
| --- | --- |
| `FSDP(model, …)` | `torch.sagemaker.fsdp.FullyShardedDataParallel(model, …)` |
| `with FSDP.state_dict_type(model, FULL_STATE_DICT, config)` | `state_dict()` gives whole tensors, on rank 0 only where the config says so |
| `with FSDP.state_dict_type(model, SHARDED_STATE_DICT)` | `state_dict()` gives DTensors |
| LOCAL_STATE_DICT, SMStateDictType.SM_LOCAL_STATE_DICT | `state_dict()` gives this rank's parts, without messages |
| `load_state_dict` | takes whole tensors and DTensors; in the local modes this rank's parts |
| `with FSDP.summon_full_params(model, …)` | parameters are whole tensors, written back to the shards |
| `FSDP.optim_state_dict`, `FSDP.optim_state_dict_to_load` | by torch.distributed.checkpoint.state_dict |
| `FullStateDictConfig(translate_on_save=…)` | accepted: names are Hugging Face's all along |
"""

import enum
import functools
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.fsdp import FSDPModule, FullStateDictConfig, FullyShardedDataParallel, StateDictType
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.sagemaker.grad_norm import clip_grad_norm_
from torch.sagemaker.state_handler import state

from trainyard_parallel.errors import not_available
from trainyard_parallel.private import tree_map


class SMStateDictType(enum.Enum):
    SM_LOCAL_STATE_DICT = enum.auto()


LOCAL = (StateDictType.LOCAL_STATE_DICT, SMStateDictType.SM_LOCAL_STATE_DICT)
MODE = "_sm_state_dict_mode"
REPLACED = (
    "state_dict_type",
    "set_state_dict_type",
    "get_state_dict_type",
    "optim_state_dict",
    "optim_state_dict_to_load",
    "summon_full_params",
)


def install():
    """Changes torch's classes, once; without an initialised job they do what they did."""
    if "__new__" in FullyShardedDataParallel.__dict__:
        return

    def new(cls, *args, **kwargs):
        if state.cfg is None:
            return object.__new__(cls)
        from torch.sagemaker.fsdp import FullyShardedDataParallel as shard

        # No instance of cls, so Python does not call its __init__.
        return shard(*args, **kwargs)

    FullyShardedDataParallel.__new__ = new
    for name in REPLACED:
        setattr(FullyShardedDataParallel, name, staticmethod(in_job(globals()[name], getattr(FullyShardedDataParallel, name))))
    original = FullStateDictConfig.__init__

    @functools.wraps(original)
    def init(self, *args, translate_on_save=True, **kwargs):
        original(self, *args, **kwargs)
        self.translate_on_save = translate_on_save

    FullStateDictConfig.__init__ = init


def in_job(ours, theirs):
    @functools.wraps(theirs)
    def choose(*args, **kwargs):
        return (theirs if state.cfg is None else ours)(*args, **kwargs)

    return choose


def prepare(module, group):
    """Gives an FSDP2 module what scripts expect of an FSDP1 module."""
    module.__dict__[MODE] = (StateDictType.SHARDED_STATE_DICT, None)
    module.register_state_dict_post_hook(give)
    module.register_load_state_dict_pre_hook(take)
    module.process_group, module.rank = group, dist.get_rank(group)
    module.clip_grad_norm_ = functools.partial(clip_grad_norm_, module)
    return module


def root_of(module):
    """The module itself, or the one inside wrappers for checkpointing and offloading."""
    return next(inner for inner in module.modules() if MODE in inner.__dict__)


def give(module, state_dict, prefix, metadata):
    kind, config = module.__dict__[MODE]
    if kind in LOCAL:
        for name, value in state_dict.items():
            if name.startswith(prefix) and isinstance(value, DTensor):
                state_dict[name] = value.to_local()
    if kind is not StateDictType.FULL_STATE_DICT:
        return
    for name in [name for name in state_dict if name.startswith(prefix)]:
        value = state_dict[name]
        value = value.full_tensor() if isinstance(value, DTensor) else value
        if getattr(config, "rank0_only", False) and state.rank != 0:
            del state_dict[name]
        elif isinstance(value, torch.Tensor):
            # Never memory of the model, which goes on training.
            state_dict[name] = value.detach().to("cpu" if getattr(config, "offload_to_cpu", False) else value.device, copy=True)


def take(module, state_dict, prefix, metadata, strict, missing, unexpected, errors):
    with sharded(module):
        tensors = module.state_dict(prefix=prefix, keep_vars=True)
    is_local = module.__dict__[MODE][0] in LOCAL
    for name, own in tensors.items():
        value = state_dict.get(name)
        if not isinstance(own, DTensor) or not isinstance(value, torch.Tensor) or isinstance(value, DTensor):
            continue
        if is_local:
            place = {"run_check": False, "shape": own.shape, "stride": own.stride()}
            state_dict[name] = DTensor.from_local(value.to(own.device), own.device_mesh, own.placements, **place)
        else:
            state_dict[name] = distribute_tensor(value.to(own.device), own.device_mesh, own.placements, src_data_rank=None)


def set_state_dict_type(module, state_dict_type, state_dict_config=None, optim_state_dict_config=None):
    root = root_of(module)
    before, root.__dict__[MODE] = root.__dict__[MODE], (state_dict_type, state_dict_config)
    return before


def get_state_dict_type(module):
    return root_of(module).__dict__[MODE][0]


@contextmanager
def state_dict_type(module, state_dict_type, state_dict_config=None, optim_state_dict_config=None):
    before = set_state_dict_type(module, state_dict_type, state_dict_config)
    try:
        yield
    finally:
        root_of(module).__dict__[MODE] = before


@contextmanager
def summon_full_params(module, recurse=True, writeback=True, rank0_only=False, offload_to_cpu=False, with_grads=False):
    """Inside, the module's parameters are whole tensors, also over tensor-parallel ranks; every rank enters it.

    Changes go to the shards at the end if `writeback`. `recurse` false leaves parts that are sharded on their own, and
    `rank0_only` other ranks, as they are. The model runs outside of it only.
    """
    if writeback and rank0_only:
        raise not_available("summon_full_params with writeback and rank0_only", "set one of them to False")
    places = [
        (part, name, own)
        for part in (module.modules() if recurse else own_parts(module))
        for name, own in part.named_parameters(recurse=False)
        if isinstance(own, DTensor)
    ]
    is_kept = state.rank == 0 or not rank0_only
    wholes = {}
    try:
        for own in dict.fromkeys(own for _, _, own in places):
            # Every rank takes part in making each.
            whole = whole_parameter(own, offload_to_cpu, with_grads)
            if is_kept:
                wholes[own] = whole
        for part, name, own in places if is_kept else ():
            part._parameters[name] = wholes[own]
        yield
    finally:
        for part, name, own in places:
            part._parameters[name] = own
        if writeback:
            for own, whole in wholes.items():
                value = whole.detach().to(own.device)
                cut = distribute_tensor(value, own.device_mesh, own.placements, src_data_rank=None)
                own.detach().to_local().copy_(cut.to_local())


def own_parts(module):
    """The module and those inside that are not sharded on their own."""
    inner = {part for child in module.modules() if isinstance(child, FSDPModule) and child is not module for part in child.modules()}
    return [part for part in module.modules() if part not in inner]


def whole_parameter(own, offload_to_cpu, with_grads):
    def whole(tensor):
        value = tensor.detach().full_tensor()
        # Never the shard's own memory, which is the whole on one rank.
        return value.to("cpu" if offload_to_cpu else value.device, copy=value.data_ptr() == tensor.detach().to_local().data_ptr())

    parameter = torch.nn.Parameter(whole(own), requires_grad=own.requires_grad)
    if with_grads and own.grad is not None:
        parameter.grad = whole(own.grad)
    return parameter


def options_for(module):
    kind, config = root_of(module).__dict__[MODE]
    is_full = kind is StateDictType.FULL_STATE_DICT
    # Both together keep the result on rank 0 alone, as rank0_only asks.
    return StateDictOptions(full_state_dict=is_full, cpu_offload=is_full and getattr(config, "rank0_only", False))


def optim_state_dict(model, optim, optim_state_dict=None, group=None):
    with sharded(model) as options:
        found = get_optimizer_state_dict(root_of(model), optim, options=options)
    # Steps are tensors that the optimizer counts up in place.
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) and leaf.dim() == 0 else leaf, found)


def optim_state_dict_to_load(model, optim, optim_state_dict, is_named_optimizer=False, load_directly=False, group=None):
    """Loads the state into the optimizer and returns the optimizer's own, which it takes again without change.

    SageMaker's recipes give the state first, as torch 2.0 did; both orders are taken.
    """
    if isinstance(model, dict):
        model, optim, optim_state_dict = optim, optim_state_dict, model
    with sharded(model) as options:
        set_optimizer_state_dict(root_of(model), optim, optim_state_dict, options=options)
    return optim.state_dict()


@contextmanager
def sharded(model):
    """The model's state dict as it is, for torch's functions, which make of it what the options say."""
    root, options = root_of(model), options_for(model)
    kept, root.__dict__[MODE] = root.__dict__[MODE], (StateDictType.SHARDED_STATE_DICT, None)
    try:
        yield options
    finally:
        root.__dict__[MODE] = kept
