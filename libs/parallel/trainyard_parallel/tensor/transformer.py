"""Transformer blocks with split weights: attention by heads, MLP by inner channels.

Around each block the ranks of a group exchange samples once (see movement.py): layer norms, dropout of hidden states
and residuals work on the rank's own samples, so they are neither repeated nor split. This layout serves both values of
`optimize`. With `pre_layernorm` alone the block adds the residual, as GPT-2 needs.
"""

import torch.nn.functional as F
from torch import nn

from trainyard_parallel.errors import SMPConfigError, not_available
from trainyard_parallel.state import state
from trainyard_parallel.tensor.layers import SplitInLinear, SplitOutLinear, attention
from trainyard_parallel.tensor.module import DistributedModule
from trainyard_parallel.tensor.movement import gather_samples, move


def must_divide(field, value):
    tp = state.size("tp")
    if value % tp:
        raise SMPConfigError(f"{field} is {value}, which tensor_parallel_degree {tp} must divide; change one of them")


class Block(DistributedModule):
    """Layer norms and the residual around a block's inner part."""

    def setup(self, hidden_size, epsilon, pre, post, dropout):
        if not (pre or post):
            raise SMPConfigError("pre_layernorm and post_layernorm are both False; at least one must be True")
        self.pre = nn.LayerNorm(hidden_size, eps=epsilon) if pre else None
        self.post = nn.LayerNorm(hidden_size, eps=epsilon) if post else None
        self.dropout = dropout

    def around(self, hidden, inner):
        out = inner(self.pre(hidden) if self.pre is not None else hidden)
        out = hidden + F.dropout(out, self.dropout, self.training)
        return self.post(out) if self.post is not None else out


class DistributedAttentionLayer(Block):
    """Self-attention on `(hidden [B, S, H], mask)`, mask additive [B, 1, 1, S] or None; returns hidden [B, S, H]."""

    def __init__(
        self,
        num_attention_heads=32,
        attention_head_size=32,
        hidden_size=1024,
        attention_dropout_prob=0.1,
        hidden_dropout_prob=0.1,
        layernorm_epsilon=1e-5,
        initializer_range=0.02,
        use_normal_initialization=False,
        cross_attention=False,
        causal_mask_size=None,
        pre_layernorm=False,
        post_layernorm=True,
    ):
        super().__init__()
        if cross_attention:
            raise not_available("cross_attention", "use self-attention layers")
        must_divide("num_attention_heads", num_attention_heads)
        self.heads, self.head_size = num_attention_heads // state.size("tp"), attention_head_size
        self.causal, self.attention_dropout = causal_mask_size is not None, attention_dropout_prob
        inner, std = num_attention_heads * attention_head_size, initializer_range if use_normal_initialization else None
        self.query, self.key, self.value = (SplitOutLinear(hidden_size, inner, std) for _ in range(3))
        self.dense = SplitInLinear(inner, hidden_size, std)
        self.setup(hidden_size, layernorm_epsilon, pre_layernorm, post_layernorm, hidden_dropout_prob)

    def forward(self, inputs):
        hidden, mask = inputs
        mask = gather_samples(mask) if mask is not None and mask.shape[0] == hidden.shape[0] else mask

        def inner(x_BSH):
            x_BSH = move("gather_batch", x_BSH)
            q, k, v = (
                layer(x_BSH).unflatten(-1, (self.heads, self.head_size)).transpose(1, 2)
                for layer in (self.query, self.key, self.value)
            )
            context = attention(q, k, v, mask, self.causal, self.attention_dropout, self.training)
            return self.dense(context.transpose(1, 2).flatten(2))

        return self.around(hidden, inner)


class DistributedTransformerOutputLayer(Block):
    """The MLP block on hidden [B, S, H]; `activation` is gelu (exact) or relu."""

    def __init__(
        self,
        hidden_size=1024,
        intermediate_size=4096,
        hidden_dropout_prob=0.1,
        activation="gelu",
        layernorm_epsilon=1e-5,
        initializer_range=0.02,
        use_normal_initialization=False,
        pre_layernorm=False,
        post_layernorm=True,
        fp32_residual_addition=False,
    ):
        super().__init__()
        if fp32_residual_addition:
            raise not_available("fp32_residual_addition", "leave it False")
        if activation not in ("gelu", "relu"):
            raise SMPConfigError(f"activation is {activation!r} but must be gelu or relu")
        must_divide("intermediate_size", intermediate_size)
        std = initializer_range if use_normal_initialization else None
        self.activation = getattr(F, activation)
        self.dense1 = SplitOutLinear(hidden_size, intermediate_size, std)
        self.dense2 = SplitInLinear(intermediate_size, hidden_size, std)
        self.setup(hidden_size, layernorm_epsilon, pre_layernorm, post_layernorm, hidden_dropout_prob)

    def forward(self, hidden):
        return self.around(hidden, lambda x: self.dense2(self.activation(self.dense1(move("gather_batch", x)))))


class DistributedTransformerLayer(DistributedModule):
    """Attention and MLP on `(hidden, mask)`; returns the same tuple."""

    def __init__(
        self,
        num_attention_heads=32,
        attention_head_size=32,
        hidden_size=1024,
        intermediate_size=4096,
        attention_dropout_prob=0.1,
        hidden_dropout_prob=0.1,
        activation="gelu",
        layernorm_epsilon=1e-5,
        initializer_range=0.02,
        use_normal_initialization=False,
        causal_mask_size=None,
        add_cross_attention=False,
        pre_layernorm=False,
        post_layernorm=True,
        use_alibi=False,
        alibi_bias_max=8,
    ):
        super().__init__()
        if add_cross_attention or use_alibi:
            raise not_available("add_cross_attention and use_alibi", "leave them False")
        self.attention = DistributedAttentionLayer(
            num_attention_heads,
            attention_head_size,
            hidden_size,
            attention_dropout_prob,
            hidden_dropout_prob,
            layernorm_epsilon,
            initializer_range,
            use_normal_initialization,
            False,
            causal_mask_size,
            pre_layernorm,
            post_layernorm,
        )
        self.output = DistributedTransformerOutputLayer(
            hidden_size,
            intermediate_size,
            hidden_dropout_prob,
            activation,
            layernorm_epsilon,
            initializer_range,
            use_normal_initialization,
            pre_layernorm,
            post_layernorm,
        )

    def forward(self, inputs):
        hidden, mask = inputs
        return self.output(self.attention((hidden, mask))), mask


class DistributedTransformer(nn.Sequential):
    """`num_layers` transformer layers; other arguments as DistributedTransformerLayer."""

    def __init__(self, num_layers=12, **layer):
        super().__init__(*(DistributedTransformerLayer(**layer) for _ in range(num_layers)))

    def forward(self, inputs):
        for layer in self:
            inputs = layer(inputs)
        return inputs
