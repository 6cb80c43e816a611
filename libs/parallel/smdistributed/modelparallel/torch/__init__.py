"""`import smdistributed.modelparallel.torch as smp`: the interface of SageMaker's model-parallel library, version 1."""

from smdistributed.modelparallel.torch import amp, exceptions, model, nn, optimizers, patches
from trainyard_parallel.checkpoint import load, resume_from_checkpoint, save, save_checkpoint
from trainyard_parallel.checkpointing import checkpoint, checkpoint_sequential, set_activation_checkpointing
from trainyard_parallel.delayed import delay_param_initialization, model_creation
from trainyard_parallel.errors import absent as _absent
from trainyard_parallel.messages import (
    CommGroup,
    RankType,
    allgather,
    barrier,
    broadcast,
    dp_barrier,
    mp_barrier,
    recv_from,
    send,
)
from trainyard_parallel.microbatch import StepOutput
from trainyard_parallel.model import DistributedModel
from trainyard_parallel.optimizer import DistributedOptimizer
from trainyard_parallel.placement import manual_partition as partition
from trainyard_parallel.placement import set_partition
from trainyard_parallel.state import state
from trainyard_parallel.step import step
from trainyard_parallel.tensor import (
    set_tensor_parallelism,
    tensor_parallelism,
    tp_register,
    tp_register_with_module,
)

WORLD, MP_GROUP, PP_GROUP = CommGroup.WORLD, CommGroup.MP_GROUP, CommGroup.PP_GROUP
TP_GROUP, DP_GROUP, RDP_GROUP = CommGroup.TP_GROUP, CommGroup.DP_GROUP, CommGroup.RDP_GROUP


def init(config=None):
    """Joins the job; the launcher's configuration (SM_HP_MP_PARAMETERS) wins over `config`. Every rank calls it once."""
    state.init(config)


def is_initialized():
    return state.cfg is not None


def is_tracing():
    """Whether the step function is being tried on zeros, before its first real run."""
    return state.is_tracing


def rank():
    state.require_init()
    return state.process.rank


def size():
    return state.size("world")


def local_rank():
    state.require_init()
    return state.process.local_rank


def local_size():
    state.require_init()
    return state.process.local_size


def _family(kind):
    def group_rank():
        return state.rank(kind)

    def group_size():
        return state.size(kind)

    def get_group():
        return state.ranks(kind)

    def get_process_group():
        if not state.cfg.ddp:
            raise ValueError(f"get_{kind}_process_group needs ddp true in the configuration")
        return state.group(kind)

    return group_rank, group_size, get_group, get_process_group


mp_rank, mp_size, get_mp_group, get_mp_process_group = _family("mp")
pp_rank, pp_size, get_pp_group, get_pp_process_group = _family("pp")
tp_rank, tp_size, get_tp_group, get_tp_process_group = _family("tp")
dp_rank, dp_size, get_dp_group, get_dp_process_group = _family("dp")
rdp_rank, rdp_size, get_rdp_group, get_rdp_process_group = _family("rdp")
get_world_process_group = _family("world")[3]


register_parameter = _absent("smp.register_parameter", "use smp.nn.DistributedModule.split_parameter")
