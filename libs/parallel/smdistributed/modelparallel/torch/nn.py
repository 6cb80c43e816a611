"""`smp.nn`: modules with split weights."""

from trainyard_parallel.errors import absent
from trainyard_parallel.tensor import (
    DistributedAttentionLayer,
    DistributedEmbedding,
    DistributedLinear,
    DistributedModule,
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
]

DistributedTransformerLMHead = absent("smp.nn.DistributedTransformerLMHead", "use DistributedTransformer with your own head")
FlashAttentionLayer = absent("smp.nn.FlashAttentionLayer", "use torch.nn.functional.scaled_dot_product_attention")
FusedLayerNorm = absent("smp.nn.FusedLayerNorm", "use torch.nn.LayerNorm")
