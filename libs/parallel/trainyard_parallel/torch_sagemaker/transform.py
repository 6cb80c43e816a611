"""`tsm.transform`: a Hugging Face model with its weights split over tensor-parallel ranks, in place.

The layers become DTensor layers of torch.distributed.tensor.parallel: heads and inner channels are split, hidden states
are whole on every rank, and parameter names stay those of Hugging Face. All ranks of a group read the same batch.
"""

import torch
import torch.distributed as dist
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.sagemaker.context_parallel.model import spread_sequences
from torch.sagemaker.moe import moe_config
from torch.sagemaker.moe.moe_layer import spread_experts
from torch.sagemaker.state_handler import state
from torch.sagemaker.tensor_parallel.transformer import mark

from trainyard_parallel.errors import SMPConfigError, SMPRuntimeError, not_available

LLAMA = {
    "model.layers.*.self_attn.q_proj": "columns",
    "model.layers.*.self_attn.k_proj": "columns",
    "model.layers.*.self_attn.v_proj": "columns",
    "model.layers.*.self_attn.o_proj": "rows",
    "model.layers.*.mlp.gate_proj": "columns",
    "model.layers.*.mlp.up_proj": "columns",
    "model.layers.*.mlp.down_proj": "rows",
    "model.embed_tokens": "vocabulary",
    "lm_head": "logits",
}
GPT_NEOX = {
    "gpt_neox.layers.*.attention.query_key_value": "columns",
    "gpt_neox.layers.*.attention.dense": "rows",
    "gpt_neox.layers.*.mlp.dense_h_to_4h": "columns",
    "gpt_neox.layers.*.mlp.dense_4h_to_h": "rows",
    "gpt_neox.embed_in": "vocabulary",
    # Its name in transformers before 5 is embed_out.
    "lm_head": "logits",
    "embed_out": "logits",
}
# Experts are spread whole, see moe/moe_layer.py.
MIXTRAL = {path: kind for path, kind in LLAMA.items() if ".mlp." not in path}
# Class → how its layers are split.
PLANS = {
    "LlamaForCausalLM": LLAMA,
    "MistralForCausalLM": LLAMA,
    "MixtralForCausalLM": MIXTRAL,
    "GPTNeoXForCausalLM": GPT_NEOX,
}
MUST_DIVIDE = ("num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size")


def styles():
    return {
        "columns": ColwiseParallel(),
        "rows": RowwiseParallel(),
        "vocabulary": RowwiseParallel(input_layouts=Replicate()),
        "logits": ColwiseParallel(output_layouts=Replicate()),
    }


def transform(
    model, device=None, dtype=None, config=None, load_state_dict_from_rank0=False, cp_comm_type="p2p"
):
    """Prepares a Hugging Face model for the degrees of the configuration and returns it; every rank must call it.

    Tensor parallelism splits its weights, expert parallelism spreads its experts (`config`, a MoEConfig or dictionary,
    says how they are routed), context parallelism makes it take parts of sequences (`cp_comm_type`: `p2p` or
    `all_gather`). Weights are kept: each group uses those of its first rank, or all ranks use rank 0's with
    `load_state_dict_from_rank0`, for which other ranks may hold a model on the meta device.
    Models: Llama, Mistral, Mixtral, GPT-NeoX (causal language models of transformers 5); without tensor and context
    parallelism any. Raises SMPConfigError where a size does not divide by its degree.
    """
    if state.cfg is None:
        raise SMPRuntimeError("tsm.transform was called before tsm.init(); call tsm.init() first")
    moe = moe_config.parse(config)
    device = device or state.mesh.device_type
    is_meta = any(parameter.is_meta for parameter in model.parameters())
    if load_state_dict_from_rank0:
        if is_meta and state.rank == 0:
            raise SMPRuntimeError("load_state_dict_from_rank0 needs rank 0's model with weights; it is on the meta device")
        (model.to_empty(device=device) if is_meta else model.to(device)).to(dtype=dtype)
        with torch.no_grad():
            for tensor in [*model.parameters(), *model.buffers()]:
                dist.broadcast(tensor, 0)
    else:
        model.to(device="meta" if is_meta else device, dtype=dtype)
    if state.cp_size > 1:
        spread_sequences(model, cp_comm_type)
    is_known = type(model).__name__ in PLANS
    experts = spread_experts(model, moe) if moe.smp_moe and is_known and (config is not None or has_spread_experts()) else 0
    if state.expert_parallel_degree > 1 and not experts:
        raise SMPConfigError(
            f"expert_parallel_degree is {state.expert_parallel_degree} but {type(model).__name__} has no experts that are "
            "replaced; use MixtralForCausalLM with smp_moe true, or expert_parallel_degree 1"
        )
    if state.tp_size > 1:
        split_weights(model)
    if is_known:
        mark(model)
    return model


def has_spread_experts():
    return state.expert_parallel_degree > 1 or state.tp_size > 1


def split_weights(model):
    name = type(model).__name__
    if name not in PLANS:
        raise not_available(f"tensor parallelism of {name}", f"models are {', '.join(PLANS)}")
    wrong = [
        f"{field} is {getattr(model.config, field)}"
        for field in MUST_DIVIDE
        if getattr(model.config, field, None) and getattr(model.config, field) % state.tp_size
    ]
    if wrong:
        raise SMPConfigError(f"{name}: {', '.join(wrong)}, which tensor_parallel_degree {state.tp_size} must divide")
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    tied = inputs.weight is outputs.weight
    kinds, top = styles(), {child for child, _ in model.named_children()}
    plan = {path: kinds[kind] for path, kind in PLANS[name].items() if path.split(".")[0] in top}
    parallelize_module(model, state.mesh["tp"], plan)
    if tied:
        outputs.weight = inputs.weight
