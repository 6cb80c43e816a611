"""`torch.sagemaker.distributed.fsdp.checkpoint`, which SageMaker has deprecated since version 2.6.1.

Scripts whose checkpoint method is USE_PG_WITH_UTIL call it. New ones use `torch.sagemaker.distributed.checkpoint`.
"""

import warnings

from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp import StateDictType
from torch.sagemaker.distributed.checkpoint.filesystem import DistributedFileSystemReader
from torch.sagemaker.distributed.checkpoint.state_dict_loader import load
from torch.sagemaker.distributed.checkpoint.state_dict_saver import save
from torch.sagemaker.logger import get_logger
from torch.sagemaker.optimizer_loading import load_sharded_optimizer_state_dict

from trainyard_parallel.errors import not_available

EXPORT_KEY_MODEL, EXPORT_KEY_OPTIMIZER, EXPORT_KEY_SCHEDULER = "model", "optimizer", "scheduler"
EXPORT_KEY_IDENTITY = "identity"

warnings.warn(
    "torch.sagemaker.distributed.fsdp.checkpoint is deprecated; use torch.sagemaker.distributed.checkpoint",
    DeprecationWarning,
    stacklevel=2,
)


def save_model_checkpoint(
    model,
    state_dict_type,
    save_dir,
    sharding_strategy=None,
    checkpointing_pg_metadata=None,
    log=True,
    optimizer=None,
    scheduler=None,
    extra_exports=None,
):
    """Writes a sharded checkpoint to `save_dir`; every rank calls it, and other degrees can load it.

    `sharding_strategy` and `checkpointing_pg_metadata` have no effect: all ranks write one folder.
    """
    only_sharded(state_dict_type)
    with FSDP.state_dict_type(model, state_dict_type):
        values = {EXPORT_KEY_MODEL: model.state_dict(), EXPORT_KEY_IDENTITY: dict(extra_exports or {})}
        if optimizer is not None:
            values[EXPORT_KEY_OPTIMIZER] = FSDP.optim_state_dict(model, optimizer)
        if scheduler is not None:
            values[EXPORT_KEY_SCHEDULER] = scheduler.state_dict()
        save(values, checkpoint_id=save_dir)
    if log:
        get_logger().info("saved a checkpoint to %s", save_dir)


def load_model_checkpoint(
    model,
    state_dict_type,
    checkpoint_dir,
    sharding_strategy=None,
    checkpointing_pg_metadata=None,
    log=True,
    optimizer=None,
    scheduler=None,
    extra_imports=None,
):
    """Loads what `save_model_checkpoint` wrote into what is given; every rank calls it.

    Returns the model, optimizer and scheduler, and the values of the names in `extra_imports`, under the EXPORT_KEYs.
    """
    only_sharded(state_dict_type)
    with FSDP.state_dict_type(model, state_dict_type):
        values = {EXPORT_KEY_MODEL: model.state_dict(), EXPORT_KEY_IDENTITY: dict(extra_imports or {})}
        if scheduler is not None:
            values[EXPORT_KEY_SCHEDULER] = scheduler.state_dict()
        reader = DistributedFileSystemReader(checkpoint_dir)
        load(values, storage_reader=reader)
        model.load_state_dict(values[EXPORT_KEY_MODEL])
        if scheduler is not None:
            scheduler.load_state_dict(values[EXPORT_KEY_SCHEDULER])
        if optimizer is not None:
            found = load_sharded_optimizer_state_dict(values[EXPORT_KEY_MODEL], EXPORT_KEY_OPTIMIZER, reader)
            optimizer.load_state_dict(FSDP.optim_state_dict_to_load(model, optimizer, found[EXPORT_KEY_OPTIMIZER]))
    if log:
        get_logger().info("loaded the checkpoint %s", checkpoint_dir)
    return {
        EXPORT_KEY_MODEL: model,
        EXPORT_KEY_OPTIMIZER: optimizer,
        EXPORT_KEY_SCHEDULER: scheduler,
        EXPORT_KEY_IDENTITY: values[EXPORT_KEY_IDENTITY],
    }


def only_sharded(state_dict_type):
    if state_dict_type is not StateDictType.SHARDED_STATE_DICT:
        raise not_available(f"a checkpoint of type {state_dict_type}", "use StateDictType.SHARDED_STATE_DICT")
