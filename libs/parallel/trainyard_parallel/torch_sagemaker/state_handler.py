"""What v2 knows about this process. Attributes may be read and set before `init`, as public scripts do."""

import json

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.sagemaker.rng import RNGStateTracker

from trainyard_parallel import config, process
from trainyard_parallel.errors import SMPRuntimeError


class Ranker:
    """Replicas of a shard: ranks with equal place inside a shard group; tensor-parallel ranks vary fastest."""

    def __init__(self, world, tp, shard):
        self.world, self.width = world, tp * shard

    def get_rep_rank(self, rank):
        return rank // self.width

    def get_rep_groups(self):
        return [list(range(first, self.world, self.width)) for first in range(self.width)]


class SagemakerState:
    def __init__(self):
        self.reset()

    def reset(self):
        """Back to the state before `init`."""
        self.cfg = None
        self.rank, self.world_size = 0, 1
        self.hybrid_shard_degree = self.tensor_parallel_degree = 1
        self.context_parallel_degree = self.expert_parallel_degree = 1
        self.tp_size, self.tp_rank, self.tp_process_group = 1, 0, None
        self.cp_size, self.cp_rank, self.cp_process_group = 1, 0, None
        self.ep_rank, self.rep_rank_process_group, self.world_process_group = 0, None, None
        self.sm_activation_offloading = False
        self.ranker, self.mesh, self.expert_mesh, self.ep_process_group = None, None, None, None
        self.save_groups = {}
        self._tracker = None

    @property
    def shard_size(self):
        """Ranks in a shard group: hybrid_shard_degree, or all data-parallel ranks where that is 0."""
        return self.hybrid_shard_degree or self.world_size // self.tensor_parallel_degree

    def get_rng_state_tracker(self):
        """Generators that differ between the ranks of a tensor- or expert-parallel group (`random_seed` + rank)."""
        if self.cfg is None:
            raise SMPRuntimeError("get_rng_state_tracker was called before tsm.init(); call tsm.init() first")
        if self._tracker is None:
            self._tracker = RNGStateTracker(process.discover().device, self.cfg.random_seed + max(self.tp_rank, self.ep_rank))
        return self._tracker


state = SagemakerState()


def init(config_or_path=None):
    """Reads the configuration and makes process groups; every rank calls it once.

    The launcher's parameters win over a dictionary, or a path of a JSON file, given here. Joins the default process
    group if the script has not. Raises SMPConfigError with all problems.
    """
    # Needs the state of this module.
    from torch.sagemaker import activation_offload, fsdp1

    if state.cfg is not None:
        raise SMPRuntimeError("tsm.init was called twice; call it once")
    given = config.from_environment()
    if given is None and isinstance(config_or_path, str):
        with open(config_or_path) as file:
            given = json.load(file)
    given = given if given is not None else config_or_path or {}
    size = dist.get_world_size() if dist.is_initialized() else process.discover().size
    cfg = config.parse_v2(given, size)
    own = process.join()
    for key, value in vars(cfg).items():
        if hasattr(state, key):
            setattr(state, key, value)
    state.cfg, state.rank, state.world_size = cfg, own.rank, own.size
    state.tp_size, state.tp_rank = cfg.tensor_parallel_degree, own.rank % cfg.tensor_parallel_degree
    # Names of the axes, slowest first.
    state.mesh = DeviceMesh(
        own.device.type,
        torch.arange(own.size).reshape(-1, state.shard_size, state.tp_size),
        mesh_dim_names=("replicate", "shard", "tp"),
    )
    state.tp_process_group = state.mesh.get_group("tp")
    make_context_groups(own)
    make_expert_mesh(own)
    make_save_groups(own)
    state.rep_rank_process_group = state.mesh.get_group("replicate")
    state.world_process_group = dist.group.WORLD
    state.ranker = Ranker(own.size, state.tp_size, state.shard_size)
    fsdp1.install()
    activation_offload.install()


def make_context_groups(own):
    """Ranks that share sequences: runs of data-parallel ranks, so shard groups contain them."""
    size = state.cfg.context_parallel_degree
    state.cp_size, state.cp_rank = size, own.rank // state.tp_size % size
    if size > 1:
        ranks = torch.arange(own.size).reshape(-1, size, state.tp_size)
        state.cp_process_group = DeviceMesh(own.device.type, ranks, mesh_dim_names=("data", "cp", "tp")).get_group("cp")


def make_expert_mesh(own):
    """Ranks between which experts are spread (`ep`, fastest) and those that shard or repeat the same experts."""
    size = state.cfg.expert_parallel_degree
    state.ep_rank = own.rank // state.tp_size % size
    if size > 1:
        shard = max(1, state.shard_size // size)
        ranks = torch.arange(own.size).reshape(-1, shard, size)
        state.expert_mesh = DeviceMesh(own.device.type, ranks, mesh_dim_names=("replicate", "shard", "ep"))
        state.ep_process_group = state.expert_mesh.get_group("ep")


def make_save_groups(own):
    """{ranks: group} for the messages of saves beside the training: all ranks and this rank's shard group.

    Made here since every rank takes part, while only some save.
    """
    shards = state.mesh.mesh.movedim(1, -1).reshape(-1, state.shard_size).tolist()
    for ranks in shards if own.size in (1, state.shard_size) else [*shards, list(range(own.size))]:
        group = dist.new_group(ranks, backend="gloo")
        if own.rank in ranks:
            state.save_groups[tuple(ranks)] = group


def is_initialized():
    return state.cfg is not None
