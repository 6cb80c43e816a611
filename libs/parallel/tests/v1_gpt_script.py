"""GPT-2 training in the style of SageMaker's sample for tensor parallelism: nothing in it is this library's own."""

import argparse
import os

import torch
from torch import optim
from torch.nn import LayerNorm
from transformers import AutoModelForCausalLM, GPT2Config, set_seed

import smdistributed.modelparallel
import smdistributed.modelparallel.torch as smp
from smdistributed.modelparallel.torch.nn import FusedLayerNorm
from smdistributed.modelparallel.torch.nn.huggingface.gpt2 import (
    translate_hf_state_dict_to_smdistributed,
    translate_state_dict_to_hf_gpt2,
)


def parse_args(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--use_distributed_transformer", type=int, default=1)
    parser.add_argument("--activation_checkpointing", type=int, default=1)
    parser.add_argument("--activation_strategy", type=str, default="each")
    parser.add_argument("--fine_tune", type=int, default=0)
    parser.add_argument("--checkpoint_dir", type=str)
    return parser.parse_known_args(arguments)[0]


def get_param_groups_by_weight_decay(module):
    weight_decay_params = {"params": []}
    no_weight_decay_params = {"params": [], "weight_decay": 0.0}
    param_ids = set()
    for module_ in module.modules():
        if isinstance(module_, (FusedLayerNorm, LayerNorm)):
            for p in module_._parameters.values():
                if p is not None and id(p) not in param_ids:
                    no_weight_decay_params["params"].append(p)
                    param_ids.add(id(p))
        else:
            for n, p in module_._parameters.items():
                if p is not None and id(p) not in param_ids:
                    (no_weight_decay_params if n == "bias" else weight_decay_params)["params"].append(p)
                    param_ids.add(id(p))
    return weight_decay_params, no_weight_decay_params


@smp.step
def train_step(model, input_ids, attention_mask):
    loss = model(input_ids=input_ids, attention_mask=attention_mask, labels=input_ids)["loss"]
    model.backward(loss)
    return loss


@smp.step
def test_step(model, input_ids, attention_mask):
    return model(input_ids=input_ids, attention_mask=attention_mask, labels=input_ids)["loss"]


def batch(step, device):
    starts = torch.randint(32, (8, 1), generator=torch.Generator().manual_seed(step))
    input_ids = (starts + torch.arange(12)) % 32
    rank, size = (smp.rdp_rank(), smp.rdp_size()) if smp.state.cfg.prescaled_batch else (smp.dp_rank(), smp.dp_size())
    input_ids = input_ids.chunk(size)[rank].to(device)
    return input_ids, torch.ones_like(input_ids)


def main(arguments=None):
    args = parse_args(arguments)
    smp.init()
    device = torch.device("cuda", smp.local_rank()) if torch.cuda.is_available() else torch.device("cpu")
    model_config = GPT2Config(
        vocab_size=32, n_positions=16, n_embd=32, n_layer=2, n_head=4, n_inner=None, activation_function="gelu_new",
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False, bos_token_id=0, eos_token_id=0, return_dict=True,
    )  # fmt: skip
    set_seed(1234)
    with smp.model_creation(
        tensor_parallelism=smp.tp_size() > 1 or args.use_distributed_transformer > 0,
        zero_init=args.use_distributed_transformer == 0,
        dtype=torch.float16 if smp.state.cfg.fp16 else torch.get_default_dtype(),
        distribute_embedding=smp.tp_size() > 1,
        use_alibi=False,
        attention_in_fp32=False,
        fp32_residual_addition=False,
        query_key_layer_scaling=True,
        fused_softmax=True,
        fused_dropout=True,
        fused_bias_gelu=True,
        flash_attention=True,
    ):
        model = AutoModelForCausalLM.from_config(model_config)
    model = smp.DistributedModel(model, trace_device="gpu", backward_passes_per_step=1)
    m = model.get_module()
    transformer_layers = m.transformer.seq_layers if args.use_distributed_transformer > 0 else m.transformer.h
    optimizer = optim.AdamW(get_param_groups_by_weight_decay(m), betas=(0.9, 0.95), lr=5e-3, weight_decay=0.2)
    if args.activation_checkpointing:
        smp.set_activation_checkpointing(transformer_layers, pack_args_as_tuple=True, strategy=args.activation_strategy)
    optimizer = smp.DistributedOptimizer(
        optimizer,
        static_loss_scale=64.0 if smp.state.cfg.fp16 else None,
        dynamic_loss_scale=False,
        dynamic_loss_args={"scale_window": 1000, "min_scale": 1, "delayed_shift": 2},
    )
    if args.fine_tune:
        smp.resume_from_checkpoint(args.checkpoint_dir, tag="fullmodel.pt", partial=False)
    for step in range(4):
        optimizer.zero_grad(set_to_none=True)
        loss = train_step(model, *batch(step, device)).reduce_mean()
        optimizer.step()
        losses = smp.allgather(loss.item(), smp.DP_GROUP)
        if smp.rank() == 0:
            print(f"step {step} loss {sum(losses) / len(losses):.7f}", flush=True)
    with torch.no_grad():
        losses = smp.allgather(test_step(model, *batch(9, device)).reduce_mean().item(), smp.DP_GROUP)
    smp.save_checkpoint(args.checkpoint_dir, tag="fullmodel.pt", partial=False, model=model, user_content={"step": 4})
    whole = model.state_dict(gather_to_rank0=True)
    if smp.rank() == 0:
        print(f"test loss {sum(losses) / len(losses):.7f}", flush=True)
        if args.use_distributed_transformer > 0:
            there = translate_state_dict_to_hf_gpt2(whole, max_seq_len=model_config.n_positions)
            assert set(translate_hf_state_dict_to_smdistributed(there)) == set(whole)
        saved = torch.load(os.path.join(args.checkpoint_dir, "fullmodel.pt"), weights_only=False)
        AutoModelForCausalLM.from_config(model_config).load_state_dict(saved)
    smp.barrier()
    assert smdistributed.modelparallel.__version__ >= "1.10"


if __name__ == "__main__":
    main()
