"""Tensor parallelism: modules whose weights are split over the ranks of a tensor-parallel group."""

from trainyard_parallel.tensor.layers import DistributedEmbedding, DistributedLinear
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
    "DistributedTransformerLayer",
    "DistributedTransformerOutputLayer",
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
