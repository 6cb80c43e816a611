"""SageMaker's recipes for checkpoints of version 2: local and sharded ones, by the names that its pages and samples import.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-parallel-core-features-v2-checkpoints.html
"""

import copy
import os

import pytest
import torch
import torch.distributed as dist

import zoo
from test_v2 import initialise, optimizer_of, prepare, train, whole

# What SageMaker's pages and samples import, beside `torch.sagemaker` itself: module → names.
IMPORTED = {
    "torch.sagemaker": "transform state init is_initialized",
    "torch.sagemaker.checkpoint.utils": "limit_num_subdirs SORT_BY_LAST_INT",
    "torch.sagemaker.context_parallel.utils": "setup_transformer_engine_cp_groups get_batch_for_cp_rank",
    "torch.sagemaker.delayed_param": "DelayedParamIniter",
    "torch.sagemaker.distributed.checkpoint.async_utils": "AsyncCallsQueue",
    "torch.sagemaker.distributed.checkpoint.filesystem": "DistributedFileSystemReader DistributedFileSystemWriter",
    "torch.sagemaker.distributed.checkpoint.s3_filesystem": "S3FileSystem is_s3_uri",
    "torch.sagemaker.distributed.checkpoint.state_dict_loader": "load",
    "torch.sagemaker.distributed.checkpoint.state_dict_saver": "save async_save maybe_finalize_async_calls",
    "torch.sagemaker.distributed.checkpoint.state_dict_utils": "SMStateDictType sm_state_dict_type init_optim_state",
    "torch.sagemaker.distributed.fsdp.checkpoint": "save_model_checkpoint load_model_checkpoint EXPORT_KEY_MODEL "
    "EXPORT_KEY_OPTIMIZER EXPORT_KEY_SCHEDULER EXPORT_KEY_IDENTITY",
    "torch.sagemaker.grad_norm": "clip_grad_norm_",
    "torch.sagemaker.logger": "get_logger",
    "torch.sagemaker.moe.moe_config": "MoEConfig",
    "torch.sagemaker.moe.moe_layer": "MoELayer",
    "torch.sagemaker.nn.attn": "FlashSelfAttention FlashGroupedQueryAttention",
    "torch.sagemaker.nn.huggingface.llama_flashattn": "LlamaFlashAttention",
    "torch.sagemaker.state_handler": "state",
    "torch.sagemaker.tensor_parallel.transformer": "TransformerLMHead TransformerLayer TETransformerLayer",
    "torch.sagemaker.utils": "utils",
    "torch.sagemaker.utils.module_utils": "empty_module_params move_buffers_to_device",
    "torch.sagemaker.utils.process_group_utils": "get_global_ranks",
    "torch.sagemaker.utils.utils": "timeit",
}


@pytest.mark.filterwarnings("ignore:torch.sagemaker.distributed.fsdp.checkpoint is deprecated")
@pytest.mark.parametrize("module", IMPORTED)
def test_the_imports_of_samples_work(module):
    names = IMPORTED[module].split()
    found = {}
    exec(f"from {module} import {', '.join(names)}", found)
    assert all(found[name] is not None for name in names)


def test_the_oldest_folders_are_removed(tmp_path):
    from torch.sagemaker.checkpoint.utils import SORT_BY_LAST_INT, limit_num_subdirs

    for name in ("run2-9steps", "run2-10steps", "run1-100steps", "run1-2steps", "other7"):
        (tmp_path / name).mkdir()
    (tmp_path / "file-1steps").touch()
    options = {"sort_fn": SORT_BY_LAST_INT, "regex": r"^.*\d+steps$"}
    assert limit_num_subdirs(str(tmp_path), 2, **options, log=False) == []
    assert limit_num_subdirs(str(tmp_path), 0, **options) == []
    assert limit_num_subdirs(str(tmp_path), 2, **options) == ["run1-2steps", "run2-9steps"]
    assert {path.name for path in tmp_path.iterdir()} == {"run2-10steps", "run1-100steps", "other7", "file-1steps"}


def start(config, steps):
    tsm = initialise(config)
    model = prepare(tsm, "llama", False)
    optimizer = optimizer_of(model)
    train(tsm, model, optimizer, steps)
    return tsm, model, optimizer


def replicas(state):
    """This rank's group of a shard's replicas, as the page makes it."""
    for ranks in state.ranker.get_rep_groups():
        group = dist.new_group(ranks)
        if dist.get_rank() in ranks:
            found = group, min(ranks)
    return found


def local_recipe(rank, config, path):
    from torch.sagemaker.distributed.checkpoint.filesystem import DistributedFileSystemReader
    from torch.sagemaker.distributed.checkpoint.state_dict_loader import load
    from torch.sagemaker.distributed.checkpoint.state_dict_saver import async_save, maybe_finalize_async_calls
    from torch.sagemaker.distributed.checkpoint.state_dict_utils import (
        SMStateDictType,
        init_optim_state,
        sm_state_dict_type,
    )

    tsm, model, optimizer = start(config, (0, 1))
    folder = os.path.join(path, f"tp{tsm.state.tp_rank}_ep{tsm.state.ep_rank}_fsdp{model.rank}")
    group, coordinator = replicas(tsm.state)
    maybe_finalize_async_calls(blocking=True, process_group=group)
    with sm_state_dict_type(model, SMStateDictType.SM_LOCAL_STATE_DICT):
        state_dict = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": 2}
    assert not any(hasattr(value, "full_tensor") for value in state_dict["model"].values())
    async_save(state_dict, checkpoint_id=folder, process_group=group, coordinator_rank=coordinator)
    # Beside the save, whose values are those of before.
    expected = train(tsm, model, optimizer, (2, 3))
    done = maybe_finalize_async_calls(blocking=True, process_group=group)

    tsm, model, optimizer = start(config, ())
    group, coordinator = replicas(tsm.state)
    with sm_state_dict_type(model, SMStateDictType.SM_LOCAL_STATE_DICT):
        state_dict = {"model": model.state_dict(), "step": 0}
    init_optim_state(optimizer, skip_empty_param=True)
    state_dict["optimizer"] = optimizer.state_dict()
    load(state_dict, process_group=group, coordinator_rank=coordinator, storage_reader=DistributedFileSystemReader(folder))
    return train(tsm, model, optimizer, (2, 3)) == expected, state_dict["step"], len(done)


@pytest.mark.parametrize(
    "config", [{"hybrid_shard_degree": 2}, {"hybrid_shard_degree": 2, "tensor_parallel_degree": 2}, {"hybrid_shard_degree": 4}]
)
def test_local_checkpoints_go_on_bit_for_bit(worlds, tmp_path, config):
    assert worlds(4).run(local_recipe, config, str(tmp_path)) == [(True, 2, 1)] * 4
    # A folder for each shard, with the files of its replicas.
    assert len(list(tmp_path.iterdir())) == (2 if config == {"hybrid_shard_degree": 2} else 4)


def save_sharded(rank, config, path):
    from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
    from torch.distributed.fsdp import StateDictType
    from torch.sagemaker.distributed.checkpoint.async_utils import AsyncCallsQueue
    from torch.sagemaker.distributed.checkpoint.state_dict_saver import async_save
    from torch.sagemaker.utils.process_group_utils import get_global_ranks

    tsm, model, optimizer = start(config, (0, 1))
    group, queue = model.process_group, AsyncCallsQueue()
    with FSDP.state_dict_type(model, StateDictType.SHARDED_STATE_DICT):
        state_dict = {"model": model.state_dict(), "optimizer": FSDP.optim_state_dict(model, optimizer), "epoch": 7}
    if tsm.state.ranker.get_rep_rank(rank) == 0:
        async_save(
            state_dict,
            checkpoint_id=os.path.join(path, f"tp{tsm.state.tp_rank}_ep{tsm.state.ep_rank}"),
            process_group=group,
            coordinator_rank=min(get_global_ranks(group)),
            queue=queue,
        )
    expected = train(tsm, model, optimizer, (2, 3))
    queue.maybe_finalize_async_calls(blocking=True, process_group=group)
    assert queue.get_num_unfinalized_calls() == 0
    dist.barrier()
    return expected, whole(model)


def load_sharded(rank, config, path):
    import torch.sagemaker  # noqa: F401  as in samples, before the next line
    from torch.distributed.checkpoint.optimizer import load_sharded_optimizer_state_dict
    from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
    from torch.distributed.fsdp import StateDictType
    from torch.sagemaker.distributed.checkpoint.filesystem import DistributedFileSystemReader
    from torch.sagemaker.distributed.checkpoint.state_dict_loader import load

    tsm, model, optimizer = start(config, ())
    reader = DistributedFileSystemReader(os.path.join(path, f"tp{tsm.state.tp_rank}_ep{tsm.state.ep_rank}"))
    group = model.process_group
    with FSDP.state_dict_type(model, StateDictType.SHARDED_STATE_DICT):
        state_dict = {"model": model.state_dict(), "epoch": 0}
        load(state_dict, storage_reader=reader, process_group=group)
        model.load_state_dict(state_dict["model"])
        found = load_sharded_optimizer_state_dict(
            model_state_dict=state_dict["model"], optimizer_key="optimizer", storage_reader=reader, process_group=group
        )
        state = FSDP.optim_state_dict_to_load(found["optimizer"], model, optimizer, group=group)
        optimizer.load_state_dict(state)
    return state_dict["epoch"], train(tsm, model, optimizer, (2, 3)), whole(model)


TP2 = {"tensor_parallel_degree": 2}


@pytest.mark.parametrize(
    "saved, loaded",
    [
        ({"hybrid_shard_degree": 2}, {"hybrid_shard_degree": 4}),
        ({"hybrid_shard_degree": 4}, {"hybrid_shard_degree": 2}),
        ({**TP2, "hybrid_shard_degree": 2}, {**TP2, "hybrid_shard_degree": 1}),
    ],
    ids=["2 to 4", "4 to 2", "tp2, 2 to 1"],
)
def test_sharded_checkpoints_load_on_other_shard_degrees(worlds, tmp_path, saved, loaded):
    (expected, reference), *_ = worlds(4).run(save_sharded, saved, str(tmp_path))
    for epoch, losses, weights in worlds(4).run(load_sharded, loaded, str(tmp_path)):
        assert epoch == 7 and losses == pytest.approx(expected, rel=1e-11)
        assert zoo.difference(weights, reference) < 1e-11


def with_older_functions(rank, path):
    from torch.distributed.fsdp import StateDictType

    from torch.sagemaker.distributed.fsdp import checkpoint as old

    def made(steps):
        tsm, model, optimizer = start({"hybrid_shard_degree": 2}, steps)
        return tsm, model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2)

    kind = StateDictType.SHARDED_STATE_DICT
    tsm, model, optimizer, scheduler = made((0, 1))
    scheduler.step()
    metadata = (model.process_group, 0, True)
    old.save_model_checkpoint(
        model, kind, path, None, metadata, log=rank == 0, optimizer=optimizer, scheduler=scheduler, extra_exports={"total_steps": 2}
    )
    kept = copy.deepcopy(scheduler.state_dict())
    expected = train(tsm, model, optimizer, (2, 3))
    tsm, model, optimizer, scheduler = made(())
    found = old.load_model_checkpoint(
        model, kind, path, None, metadata, optimizer=optimizer, scheduler=scheduler, extra_imports={"total_steps": 0}
    )
    same = found[old.EXPORT_KEY_MODEL] is model and found[old.EXPORT_KEY_OPTIMIZER] is optimizer
    scheduled = found[old.EXPORT_KEY_SCHEDULER].state_dict() == kept
    return train(tsm, model, optimizer, (2, 3)) == expected, same, scheduled, found[old.EXPORT_KEY_IDENTITY]


def test_the_older_functions_save_and_load(worlds, tmp_path):
    assert worlds(4).run(with_older_functions, str(tmp_path)) == [(True, True, True, {"total_steps": 2})] * 4


def refusals(rank, path):
    from torch.sagemaker.distributed.checkpoint.state_dict_saver import save

    tsm, model, _ = start({"hybrid_shard_degree": 4}, ())
    group = [dist.new_group(ranks) for ranks in ([0, 1], [2, 3])][rank // 2]
    found = []
    for place, process_group in ((path, group), (f"{path}/{rank % 2}", model.process_group)):
        try:
            save(model.state_dict(), checkpoint_id=place, process_group=process_group)
        except RuntimeError as error:
            found.append(str(error))
    return found


def test_groups_and_folders_that_would_lose_parts_are_refused(worlds, tmp_path):
    for rank, (parts, folders) in enumerate(worlds(4).run(refusals, str(tmp_path))):
        assert f"process_group has the ranks {[0, 1] if rank < 2 else [2, 3]}, which hold different parts" in parts
        assert f"name the folders {tmp_path}/0, {tmp_path}/1" in folders


def test_states_are_made_without_a_step():
    from torch.sagemaker.distributed.checkpoint.state_dict_utils import init_optim_state

    parameter, empty = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(0))
    parameter.grad = torch.full((3,), 5.0)
    optimizer = torch.optim.AdamW([parameter, empty], lr=0.5, weight_decay=0.5)
    init_optim_state(optimizer, skip_empty_param=True)
    kept = optimizer.state[parameter]["exp_avg"]
    init_optim_state(optimizer)
    same = optimizer.state[parameter]["exp_avg"] is kept and empty not in optimizer.state
    assert (parameter.tolist(), parameter.grad.tolist(), kept.tolist()) == ([1.0] * 3, [5.0] * 3, [0.0] * 3)
    assert optimizer.param_groups[0]["lr"] == 0.5 and same
