"""A training script in the style of SageMaker's samples for version 2: nothing in it is this library's own."""

import functools
import os
import sys
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.sagemaker as tsm
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointImpl,
    apply_activation_checkpointing,
    checkpoint_wrapper,
)
from torch.distributed.fsdp import BackwardPrefetch, FullStateDictConfig, MixedPrecision, ShardingStrategy, StateDictType
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from torch.sagemaker.grad_norm import clip_grad_norm_
from torch.sagemaker.logger import get_logger
from torch.sagemaker.tensor_parallel.transformer import TransformerLayer
from torch.sagemaker.utils.process_group_utils import get_global_ranks
from transformers import AutoModelForCausalLM, LlamaConfig

logger = get_logger()


def main(folder):
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=120))
    tsm.init()
    if torch.cuda.is_available():
        torch.cuda.set_device(dist.get_rank() % torch.cuda.device_count())
    assert get_global_ranks(tsm.state.world_process_group) == list(range(dist.get_world_size()))
    dp_rank = dist.get_rank() // (tsm.state.tp_size * tsm.state.cp_size)
    dp_size = dist.get_world_size() // (tsm.state.tp_size * tsm.state.cp_size)
    torch.manual_seed(12345)
    config = LlamaConfig(
        vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    model = AutoModelForCausalLM.from_config(config)
    model = tsm.transform(model, load_state_dict_from_rank0=True)
    dtype = torch.float32
    model = FSDP(
        model,
        auto_wrap_policy=functools.partial(transformer_auto_wrap_policy, transformer_layer_cls={TransformerLayer}),
        mixed_precision=MixedPrecision(param_dtype=dtype, reduce_dtype=dtype, buffer_dtype=dtype),
        sharding_strategy=ShardingStrategy.HYBRID_SHARD,
        backward_prefetch=BackwardPrefetch.BACKWARD_PRE,
        forward_prefetch=False,
        limit_all_gathers=True,
        device_id=torch.cuda.current_device() if torch.cuda.is_available() else None,
        use_orig_params=True,
        sync_module_states=True,
    )
    apply_activation_checkpointing(
        model,
        checkpoint_wrapper_fn=functools.partial(checkpoint_wrapper, checkpoint_impl=CheckpointImpl.NO_REENTRANT),
        check_fn=lambda submodule: isinstance(submodule, TransformerLayer),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    device = next(model.parameters()).device

    def steps(numbers):
        for step in numbers:
            generator = torch.Generator().manual_seed(step)
            starts = torch.randint(32, (8, 1), generator=generator)
            input_ids = ((starts + torch.arange(16)) % 32).chunk(dp_size)[dp_rank].to(device)
            optimizer.zero_grad(set_to_none=True)
            loss = model(input_ids=input_ids, attention_mask=None, labels=input_ids)["loss"]
            loss.backward()
            norm = clip_grad_norm_(model, 1.0)
            optimizer.step()
            total = loss.detach().clone()
            dist.all_reduce(total)
            if dist.get_rank() == 0:
                print(f"step {step} loss {total.item() / dist.get_world_size():.7f} norm {float(norm):.6f}", flush=True)

    steps(range(2))
    # A full checkpoint in Hugging Face's form, on rank 0.
    save_policy = FullStateDictConfig(rank0_only=True, offload_to_cpu=True, translate_on_save=True)
    with FSDP.state_dict_type(model, StateDictType.FULL_STATE_DICT, save_policy):
        weights = model.state_dict()
        states = FSDP.optim_state_dict(model, optimizer)
    if dist.get_rank() == 0:
        torch.save({"model": weights, "optimizer": states}, os.path.join(folder, "full.pt"))
    dist.barrier()
    steps(range(2, 4))
    # Back to it: the same steps again give the same losses.
    saved = torch.load(os.path.join(folder, "full.pt"), weights_only=False)
    with FSDP.state_dict_type(model, StateDictType.FULL_STATE_DICT):
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(FSDP.optim_state_dict_to_load(model, optimizer, saved["optimizer"]))
    steps(range(2, 4))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
