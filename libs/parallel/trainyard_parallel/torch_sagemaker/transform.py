"""`tsm.transform`: a Hugging Face model with its weights split over tensor-parallel ranks, in place.

The layers become DTensor layers of torch.distributed.tensor.parallel: heads and inner channels are split, hidden states
are whole on every rank, and parameter names stay those of Hugging Face. All ranks of a group read the same batch.
"""

import torch
import torch.distributed as dist
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.sagemaker.state_handler import state

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
    "embed_out": "logits",
}
# Class → how its layers are split.
PLANS = {"LlamaForCausalLM": LLAMA, "MistralForCausalLM": LLAMA, "GPTNeoXForCausalLM": GPT_NEOX}
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
    """Splits the model's weights over the tensor-parallel group and returns the model; every rank must call it.

    Weights are kept: each group uses those of its first rank, or all use rank 0's with `load_state_dict_from_rank0`.
    Models: Llama, Mistral, GPT-NeoX (causal language models of transformers 5). Raises SMPConfigError where a size does
    not divide by tensor_parallel_degree.
    """
    if state.cfg is None:
        raise SMPRuntimeError("tsm.transform was called before tsm.init(); call tsm.init() first")
    if config is not None:
        raise not_available("tsm.transform(config=…) (expert parallelism)", "call it without config")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise not_available("tsm.transform of a model on the meta device", "create the model with weights")
    model.to(device=device or state.mesh.device_type, dtype=dtype)
    if load_state_dict_from_rank0:
        with torch.no_grad():
            for tensor in [*model.parameters(), *model.buffers()]:
                dist.broadcast(tensor, 0)
    if state.tp_size == 1:
        return model
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
    kinds = styles()
    parallelize_module(model, state.mesh["tp"], {path: kinds[kind] for path, kind in PLANS[name].items()})
    if tied:
        outputs.weight = inputs.weight
    return model
