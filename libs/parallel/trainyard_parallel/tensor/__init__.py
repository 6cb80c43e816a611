"""Tensor parallelism: modules whose weights are split over the ranks of a tensor-parallel group."""

from trainyard_parallel.tensor.attention import FlashAttentionLayer
from trainyard_parallel.tensor.layers import DistributedEmbedding, DistributedLinear
from trainyard_parallel.tensor.lm_head import DistributedTransformerLMHead
from trainyard_parallel.tensor.module import DistributedModule, cut_state, gather_state, is_distributed, is_scaled_batch
from trainyard_parallel.tensor.registry import (
    distribute,
    set_tensor_parallelism,
    tensor_parallelism,
    tp_register,
    tp_register_with_module,
)
from trainyard_parallel.tensor.transformer import (
    DistributedAttentionLayer,
    DistributedTransformer,
    DistributedTransformerLayer,
    DistributedTransformerOutputLayer,
)

__all__ = [
    "DistributedAttentionLayer",
    "DistributedEmbedding",
    "DistributedLinear",
    "DistributedModule",
    "DistributedTransformer",
    "DistributedTransformerLMHead",
    "DistributedTransformerLayer",
    "DistributedTransformerOutputLayer",
    "FlashAttentionLayer",
    "cut_state",
    "distribute",
    "gather_state",
    "is_distributed",
    "is_scaled_batch",
    "set_tensor_parallelism",
    "tensor_parallelism",
    "tp_register",
    "tp_register_with_module",
]
