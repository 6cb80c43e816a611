"""Pairs of training steps that do the same work: one by the library, one by the bare part of PyTorch.

A case makes (ours, bare): callables of a step's number that train one step and
return its loss, or None on ranks that do not know it. Both start from the same weights and read the same data.
"""

from dataclasses import dataclass
from typing import Callable

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from gpt import GPT, Block, Stage, batch_of, token_loss

CLIP = 1.0


def make_gpt(shape):
    torch.manual_seed(3)
    return GPT(shape["vocabulary"], shape["width"], shape["heads"], shape["layers"], shape["sequence"])


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=1e-3)


def own_rows(shape, step):
    """This rank's samples where every rank has its own."""
    return batch_of(shape, shape["batch"], step * dist.get_world_size() + dist.get_rank())


def plain_step(model, optimizer, rows, shape, clip=False):
    def step(number):
        ids, labels = rows(shape, number)
        optimizer.zero_grad()
        loss = model(ids, labels)
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss.detach()

    return step


def fsdp2(model, blocks):
    options = {
        "mesh": init_device_mesh("cpu", (dist.get_world_size(),)),
        "mp_policy": MixedPrecisionPolicy(param_dtype=torch.float32, reduce_dtype=torch.float32),
    }
    for block in blocks:
        fully_shard(block, **options)
    return fully_shard(model, **options)


# ---- version 2 ----


def v2_hybrid_shard(shape):
    import torch.sagemaker as tsm
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy
    from torch.sagemaker.fsdp import FullyShardedDataParallel

    tsm.init({"hybrid_shard_degree": dist.get_world_size()})
    ours = FullyShardedDataParallel(make_gpt(shape), auto_wrap_policy=ModuleWrapPolicy({Block}))
    bare = make_gpt(shape)
    bare = fsdp2(bare, bare.blocks)
    return (
        plain_step(ours, adamw(ours.parameters()), own_rows, shape),
        plain_step(bare, adamw(bare.parameters()), own_rows, shape),
    )


def make_llama(shape):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape["vocabulary"],
            hidden_size=shape["width"],
            intermediate_size=4 * shape["width"],
            num_hidden_layers=shape["layers"],
            num_attention_heads=shape["heads"],
            num_key_value_heads=shape["heads"],
            max_position_embeddings=shape["sequence"],
        )
    )


def v2_tensor(shape):
    import torch.sagemaker as tsm

    size = dist.get_world_size()
    tsm.init({"tensor_parallel_degree": size})
    ours = tsm.transform(make_llama(shape))
    bare = make_llama(shape)
    plan = {"model.embed_tokens": RowwiseParallel(input_layouts=Replicate()), "lm_head": ColwiseParallel(output_layouts=Replicate())}
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"):
        plan[f"model.layers.*.{name}"] = ColwiseParallel()
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        plan[f"model.layers.*.{name}"] = RowwiseParallel()
    parallelize_module(bare, init_device_mesh("cpu", (size,)), plan)

    def stepper(model):
        optimizer = adamw(model.parameters())

        def step(number):
            ids, labels = batch_of(shape, shape["batch"], number)
            optimizer.zero_grad()
            loss = token_loss(model(input_ids=ids, use_cache=False).logits, labels)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    return stepper(ours), stepper(bare)


# ---- version 1 ----


def smp_step(shape, model, rows, config, loss_in_model=True):
    """A step of SageMaker's version 1 with the loss in the model or in the step function."""
    import smdistributed.modelparallel.torch as smp

    smp.init(config)
    model = smp.DistributedModel(model(smp))
    optimizer = smp.DistributedOptimizer(adamw(model.parameters()))

    @smp.step
    def train_step(model, ids, labels):
        loss = model(ids, labels) if loss_in_model else token_loss(model(ids), labels)
        model.backward(loss)
        return loss

    def step(number):
        ids, labels = rows(shape, number)
        optimizer.zero_grad()
        loss = train_step(model, ids, labels).reduce_mean()
        optimizer.step()
        return loss.detach()

    return step


def v1_sharded_data(shape):
    config = {
        "ddp": True,
        "sharded_data_parallel_degree": dist.get_world_size(),
        "sdp_param_persistence_threshold": 0,
        "sdp_gradient_clipping": CLIP,
    }
    bare = make_gpt(shape)
    bare = fsdp2(bare, bare.blocks)
    return (
        smp_step(shape, lambda smp: make_gpt(shape), own_rows, config),
        plain_step(bare, adamw(bare.parameters()), own_rows, shape, clip=True),
    )


def v1_data(shape):
    bare = torch.nn.parallel.DistributedDataParallel(make_gpt(shape))
    return (
        smp_step(shape, lambda smp: make_gpt(shape), own_rows, {"ddp": True}),
        plain_step(bare, adamw(bare.parameters()), own_rows, shape),
    )


def v1_optimizer_state(shape):
    from torch.distributed.optim import ZeroRedundancyOptimizer

    bare = torch.nn.parallel.DistributedDataParallel(make_gpt(shape))
    return (
        smp_step(shape, lambda smp: make_gpt(shape), own_rows, {"ddp": True, "shard_optimizer_state": True}),
        plain_step(bare, ZeroRedundancyOptimizer(bare.parameters(), torch.optim.AdamW, lr=1e-3), own_rows, shape),
    )


def pipeline(shape, name, kind, loss_in_model):
    size, rank, layers = dist.get_world_size(), dist.get_rank(), shape["layers"]
    count = shape["microbatches"]
    each = layers // size

    def rows(shape, step):
        return batch_of(shape, shape["batch"] * count, step)

    def manual(smp):
        # The same cut as the bare pipeline's.
        model = make_gpt(shape)
        for index, block in enumerate(model.blocks):
            smp.set_partition(block, index // each)
        for last in (model.ln, model.head):
            smp.set_partition(last, size - 1)
        return model

    config = {
        "pipeline_parallel_degree": size,
        "microbatches": count,
        "active_microbatches": count,
        "pipeline": name,
        "auto_partition": False,
        "default_partition": 0,
    }
    module = Stage(make_gpt(shape), rank * each, (rank + 1) * each)
    stage = PipelineStage(module, rank, size, torch.device("cpu"))
    schedule = kind(stage, count, loss_fn=token_loss)
    optimizer = adamw(module.parameters())

    def bare(number):
        ids, labels = rows(shape, number)
        optimizer.zero_grad()
        losses = []
        last = rank == size - 1
        schedule.step(*((ids,) if rank == 0 else ()), target=labels if last else None, losses=losses if last else None)
        optimizer.step()
        return sum(losses).detach() / count if last else None

    return smp_step(shape, manual, rows, config, loss_in_model), bare


def v1_pipeline_simple(shape):
    return pipeline(shape, "simple", ScheduleGPipe, True)


def v1_pipeline_interleaved(shape):
    return pipeline(shape, "interleaved", Schedule1F1B, True)


def v1_pipeline_user_loss(shape):
    return pipeline(shape, "interleaved", Schedule1F1B, False)


def v1_tensor(shape):
    size = dist.get_world_size()

    def all_rows(shape, step):
        parts = [batch_of(shape, shape["batch"], step * size + rank) for rank in range(size)]
        return tuple(torch.cat(part) for part in zip(*parts))

    def distributed(smp):
        model = make_gpt(shape)
        whole = model.state_dict()
        for index in range(len(model.blocks)):
            model.blocks[index] = split_block(smp, shape)
        return with_weights(model, whole)

    bare = make_gpt(shape)
    plan = {}
    for name in ("attention.query", "attention.key", "attention.value", "output.dense1"):
        plan[f"blocks.*.{name}"] = ColwiseParallel()
    for name in ("attention.dense", "output.dense2"):
        plan[f"blocks.*.{name}"] = RowwiseParallel()
    parallelize_module(bare, init_device_mesh("cpu", (size,)), plan)
    ours = smp_step(shape, distributed, own_rows, {"ddp": True, "tensor_parallel_degree": size})
    return ours, plain_step(bare, adamw(bare.parameters()), all_rows, shape)


def with_weights(model, whole):
    """The model, whose blocks are split, with this rank's part of whole weights."""
    from trainyard_parallel.tensor import cut_state

    model.load_state_dict(cut_state(model, whole))
    return model


def split_block(smp, shape):
    class SplitBlock(smp.nn.DistributedTransformerLayer):
        def forward(self, x):
            return super().forward((x, None))[0]

    return SplitBlock(
        num_attention_heads=shape["heads"],
        attention_head_size=shape["width"] // shape["heads"],
        hidden_size=shape["width"],
        intermediate_size=4 * shape["width"],
        attention_dropout_prob=0.0,
        hidden_dropout_prob=0.0,
        causal_mask_size=shape["sequence"],
        pre_layernorm=True,
        post_layernorm=False,
    )


WIDE = {"vocabulary": 256, "width": 256, "heads": 8, "layers": 4, "sequence": 64, "batch": 2}
SLIM = {**WIDE, "width": 128, "heads": 4}
NARROW = {"vocabulary": 256, "width": 64, "heads": 4, "layers": 4, "sequence": 64, "batch": 4, "microbatches": 8}


@dataclass(frozen=True)
class Case:
    make: Callable
    shape: dict
    # Of the ratio of step times.
    goal: float
    # Rate of the link between the ranks' hosts that makes communication a fifth of the step; None: one host.
    megabits: int | None = None


CASES = {
    "v2 hybrid shard / FSDP2": Case(v2_hybrid_shard, WIDE, 1.05),
    "v2 tensor / parallelize_module": Case(v2_tensor, SLIM, 1.05, 500),
    "v1 sharded data / FSDP2": Case(v1_sharded_data, WIDE, 1.15),
    "v1 pipeline simple / ScheduleGPipe": Case(v1_pipeline_simple, NARROW, 1.15, 150),
    "v1 pipeline interleaved / Schedule1F1B": Case(v1_pipeline_interleaved, NARROW, 1.15, 150),
    "v1 pipeline, loss in the step / Schedule1F1B": Case(v1_pipeline_user_loss, NARROW, 1.15, 150),
    "v1 tensor / parallelize_module": Case(v1_tensor, SLIM, 1.15, 500),
    "v1 data / DistributedDataParallel": Case(v1_data, {**WIDE, "batch": 1}, 1.15),
    "v1 optimizer state / ZeroRedundancyOptimizer": Case(v1_optimizer_state, WIDE, 1.15),
}
