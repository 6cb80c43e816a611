"""Transformer blocks with split weights: attention by heads, MLP by inner channels.

Around each block the ranks of a group exchange samples once (see movement.py): layer norms, dropout of hidden states
and residuals work on the rank's own samples, so they are neither repeated nor split. This layout serves both values of
`optimize`. With `pre_layernorm` alone the block adds the residual, as GPT-2 needs.

Options that name kernels (`fused_softmax`, `fused_dropout`, `fused_bias_gelu`, `flash_attention`) are accepted: torch
chooses the attention kernel by device, type and mask, and results do not depend on them.
"""

from functools import partial

import torch.nn.functional as F
from torch import nn

from trainyard_parallel.errors import SMPConfigError
from trainyard_parallel.state import state
from trainyard_parallel.tensor.attention import alibi, attention, own_randomness, rotary, score_scale
from trainyard_parallel.tensor.layers import SplitInLinear, SplitOutLinear
from trainyard_parallel.tensor.module import DistributedModule
from trainyard_parallel.tensor.movement import gather_samples, move

ACTIVATIONS = {
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
    # One function, by its names in transformers.
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh"), partial(F.gelu, approximate="tanh")),
}
KERNELS = ("fused_softmax", "fused_dropout", "fused_bias_gelu", "flash_attention")


def must_divide(field, value):
    tp = state.size("tp")
    if value % tp:
        raise SMPConfigError(f"{field} is {value}, which tensor_parallel_degree {tp} must divide; change one of them")


def apply_norm(norm, x):
    """`norm` in its own type: the residual may be kept in float32."""
    return x if norm is None else norm(x.to(norm.weight.dtype))


class Block(DistributedModule):
    """Layer norms and the residual around a block's inner part."""

    def setup(self, hidden_size, epsilon, pre, post, dropout, fp32_residual):
        self.pre_layernorm = nn.LayerNorm(hidden_size, eps=epsilon) if pre else None
        self.layernorm = nn.LayerNorm(hidden_size, eps=epsilon) if post else None
        self.dropout, self.fp32_residual = dropout, fp32_residual

    def add(self, hidden, *outs):
        if self.fp32_residual:
            hidden = hidden.float()
        for out in outs:
            hidden = hidden + F.dropout(out, self.dropout, self.training)
        return hidden

    def around(self, hidden, inner):
        out = inner(move("gather_batch", apply_norm(self.pre_layernorm, hidden)))
        return apply_norm(self.layernorm, self.add(hidden, out))


def needs_a_norm(pre, post):
    if not (pre or post):
        raise SMPConfigError("pre_layernorm and post_layernorm are both False; at least one must be True")


class DistributedAttentionLayer(Block):
    """Self-attention on `(hidden [B, S, H], mask)`, mask additive, e.g. [B, 1, 1, S], or None; returns hidden [B, S, H].

    With `cross_attention` it takes `(hidden, cross_states [B, T, H], mask)` and keys and values come from cross_states.
    `causal_mask_size` switches the causal mask on; any length is served. `rotary_dim` turns that many channels of
    each head by position, in pairs of neighbours, or of halves with `gpt_neox_type_rotary`. `query_key_layer_scaling`
    guards float16 products and changes no value; the kernels scale before they multiply.
    """

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
        use_qkv_bias=True,
        use_attn_dense_bias=True,
        scale_attention_scores=True,
        scale_attn_by_layer_idx=False,
        layer_idx=None,
        rotary_dim=None,
        rotary_emb_base=10000.0,
        gpt_neox_type_rotary=False,
        window_size=None,
        use_alibi=False,
        alibi_bias_max=8,
        attention_in_fp32=False,
        query_key_layer_scaling=False,
        fp32_residual_addition=False,
        _checked=False,
        **kernels,
    ):
        super().__init__()
        refuse_unknown(kernels)
        if not _checked:
            needs_a_norm(pre_layernorm, post_layernorm)
        must_divide("num_attention_heads", num_attention_heads)
        self.all_heads, self.heads = num_attention_heads, num_attention_heads // state.size("tp")
        self.head_size, self.is_cross, self.causal = attention_head_size, cross_attention, causal_mask_size is not None
        self.attention_dropout, self.in_fp32, self.window = attention_dropout_prob, attention_in_fp32, window_size
        self.scale = score_scale(attention_head_size, scale_attention_scores, scale_attn_by_layer_idx, layer_idx)
        self.rotary = rotary_dim and partial(rotary, dim=rotary_dim, base=rotary_emb_base, interleaved=not gpt_neox_type_rotary)
        self.alibi_bias_max = alibi_bias_max if use_alibi else None
        inner, std = num_attention_heads * attention_head_size, initializer_range if use_normal_initialization else None
        self.query, self.key, self.value = (SplitOutLinear(hidden_size, inner, std, bias=use_qkv_bias) for _ in range(3))
        self.dense = SplitInLinear(inner, hidden_size, std, bias=use_attn_dense_bias)
        self.setup(hidden_size, layernorm_epsilon, pre_layernorm, post_layernorm, hidden_dropout_prob, fp32_residual_addition)

    def forward(self, inputs):
        hidden, *cross, mask = inputs
        mask = own_samples(mask, hidden)
        cross = move("gather_batch", cross[0]) if cross else None
        return self.around(hidden, lambda x: self.inner(x, mask, cross))

    def inner(self, x, mask, cross=None):
        """The block without norms and residual, on the samples of the whole group."""
        source = x if cross is None else cross
        q, k, v = (
            layer(at).unflatten(-1, (self.heads, self.head_size)).transpose(1, 2)
            for layer, at in ((self.query, x), (self.key, source), (self.value, source))
        )
        if self.rotary:
            q, k = self.rotary(q), self.rotary(k)
        dtype = v.dtype
        if self.in_fp32:
            q, k, v = q.float(), k.float(), v.float()
        if self.alibi_bias_max is not None:
            first = self.heads * state.rank("tp")
            bias = alibi(self.heads, self.all_heads, first, q.shape[2], k.shape[2], self.alibi_bias_max, q.device, q.dtype)
            mask = bias if mask is None else mask + bias
        dropout = self.attention_dropout if self.training else 0.0
        if dropout:
            with own_randomness(x.device):
                context = attention(q, k, v, mask, self.causal, dropout, self.scale, self.window)
        else:
            context = attention(q, k, v, mask, self.causal, 0.0, self.scale, self.window)
        return self.dense(context.to(dtype).transpose(1, 2).flatten(2))


def own_samples(mask, hidden):
    """The mask of the samples that the group works on together."""
    return gather_samples(mask) if mask is not None and mask.shape[0] == hidden.shape[0] else mask


def refuse_unknown(options):
    unknown = sorted(set(options) - set(KERNELS))
    if unknown:
        raise TypeError(f"unexpected keyword arguments {unknown}; known beside the signature are {list(KERNELS)}")


class DistributedTransformerOutputLayer(Block):
    """The MLP block on hidden [B, S, H]; `activation` is a key of ACTIVATIONS (gelu is the exact one)."""

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
        _checked=False,
        **kernels,
    ):
        super().__init__()
        refuse_unknown(kernels)
        if not _checked:
            needs_a_norm(pre_layernorm, post_layernorm)
        if activation not in ACTIVATIONS:
            raise SMPConfigError(f"activation is {activation!r} but must be one of {', '.join(ACTIVATIONS)}")
        must_divide("intermediate_size", intermediate_size)
        std = initializer_range if use_normal_initialization else None
        self.activation = ACTIVATIONS[activation]
        self.dense1 = SplitOutLinear(hidden_size, intermediate_size, std)
        self.dense2 = SplitInLinear(intermediate_size, hidden_size, std)
        self.setup(hidden_size, layernorm_epsilon, pre_layernorm, post_layernorm, hidden_dropout_prob, fp32_residual_addition)

    def forward(self, hidden):
        return self.around(hidden, self.inner)

    def inner(self, x):
        """The block without norms and residual, on the samples of the whole group."""
        return self.dense2(self.activation(self.dense1(x)))


class DistributedTransformerLayer(DistributedModule):
    """Attention and MLP on `(hidden, mask)`, or `(hidden, cross_states, mask, cross_mask)` with `add_cross_attention`;
    returns the same tuple. Without cross states (None) the cross attention is left out.

    `parallel_attn_output` adds attention and MLP to one residual: both see the layer's input, each by its own layer norm,
    or by one with `single_pre_layernorm` (GPT-J), for which the group exchanges samples once less.
    """

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
        parallel_attn_output=False,
        single_pre_layernorm=False,
        fp32_residual_addition=False,
        **options,
    ):
        super().__init__()
        needs_a_norm(pre_layernorm, post_layernorm)
        if parallel_attn_output and (add_cross_attention or post_layernorm or not pre_layernorm):
            raise SMPConfigError("parallel_attn_output needs pre_layernorm alone and no cross attention; change one of them")
        if single_pre_layernorm and not parallel_attn_output:
            raise SMPConfigError("single_pre_layernorm needs parallel_attn_output; change one of them")
        both = {
            "hidden_size": hidden_size,
            "hidden_dropout_prob": hidden_dropout_prob,
            "layernorm_epsilon": layernorm_epsilon,
            "initializer_range": initializer_range,
            "use_normal_initialization": use_normal_initialization,
            "pre_layernorm": pre_layernorm,
            "post_layernorm": post_layernorm,
            "fp32_residual_addition": fp32_residual_addition,
        }
        heads = {
            **both,
            "num_attention_heads": num_attention_heads,
            "attention_head_size": attention_head_size,
            "attention_dropout_prob": attention_dropout_prob,
            **options,
        }
        own = {"causal_mask_size": causal_mask_size, "use_alibi": use_alibi, "alibi_bias_max": alibi_bias_max}
        self.is_parallel, self.has_one_norm = parallel_attn_output, single_pre_layernorm
        self.attention = DistributedAttentionLayer(**{**heads, **own})
        self.crossattention = None
        if add_cross_attention:
            cross = {"cross_attention": True, "rotary_dim": None, "window_size": None}
            self.crossattention = DistributedAttentionLayer(**{**heads, **cross})
        both["pre_layernorm"] = pre_layernorm and not single_pre_layernorm
        self.output = DistributedTransformerOutputLayer(
            **both, intermediate_size=intermediate_size, activation=activation, _checked=single_pre_layernorm
        )

    def forward(self, inputs):
        if self.crossattention is not None:
            hidden, cross, mask, cross_mask = inputs
            hidden = self.attention((hidden, mask))
            if cross is not None:
                hidden = self.crossattention((hidden, cross, cross_mask))
            return self.output(hidden), cross, mask, cross_mask
        hidden, mask = inputs
        if not self.is_parallel:
            return self.output(self.attention((hidden, mask))), mask
        x = move("gather_batch", apply_norm(self.attention.pre_layernorm, hidden))
        y = x if self.has_one_norm else move("gather_batch", apply_norm(self.output.pre_layernorm, hidden))
        hidden = self.attention.add(hidden, self.attention.inner(x, own_samples(mask, hidden)), self.output.inner(y))
        return hidden, mask


class Layers(nn.Sequential):
    """Layers one after another; masks and cross states are those of the input, so stages need not send them on."""

    def forward(self, inputs):
        for layer in self:
            inputs = (layer(inputs)[0], *inputs[1:])
        return inputs


class DistributedTransformer(DistributedModule):
    """`num_layers` transformer layers, `seq_layers`; other arguments, inputs and result as DistributedTransformerLayer.

    `attention_layers_type` names each layer "global" or "local"; local ones see `window_size` tokens back (GPT-Neo).
    """

    def __init__(self, num_layers=12, attention_layers_type=None, window_size=None, **layer):
        super().__init__()
        kinds = attention_layers_type or ["local"] * num_layers
        windows = [window_size if kind == "local" else None for kind in kinds]
        self.seq_layers = Layers(
            *(DistributedTransformerLayer(**{"layer_idx": i, **layer}, window_size=windows[i]) for i in range(num_layers))
        )

    def forward(self, inputs):
        return self.seq_layers(inputs)
