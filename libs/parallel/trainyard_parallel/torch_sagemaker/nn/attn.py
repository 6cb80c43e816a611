"""`torch.sagemaker.nn.attn`: attention on packed inputs; torch chooses the kernel.

Legend: b samples, h heads, g key-value heads (g divides h), s tokens, d channels.
"""

import torch
from torch import nn

from trainyard_parallel.tensor.attention import alibi, attention

LAYOUTS = ("b h s d", "b s h d")


def unpack(packed, parts, layout, dtype):
    """`parts` tensors [b, h, s, d] from a tuple of them, or from one whose heads lie behind one another."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r} but must be one of {', '.join(map(repr, LAYOUTS))}")
    tensors = packed.chunk(parts, 1 if layout == "b h s d" else 2) if isinstance(packed, torch.Tensor) else packed
    tensors = [t if layout == "b h s d" else t.transpose(1, 2) for t in tensors]
    return tensors if dtype is None else [t.to(dtype) for t in tensors]


class FlashSelfAttention(nn.Module):
    """`qkv` is one tensor with 3·h heads, or three tensors; the result is [b, h, s, d].

    `attn_mask` is additive and broadcasts to [b, h, s, s]; `cast_dtype` computes in another type. `scale` is 1/√d unless
    given. `triton_flash_attention` has no effect.
    """

    def __init__(self, attention_dropout_prob=0.0, scale=None, triton_flash_attention=False, use_alibi=False):
        super().__init__()
        self.dropout, self.scale, self.use_alibi = attention_dropout_prob, scale, use_alibi

    def forward(self, qkv, attn_mask=None, causal=False, cast_dtype=None, layout="b h s d"):
        q, k, v = unpack(qkv, 3, layout, cast_dtype)
        if self.use_alibi:
            heads, size = q.shape[1], q.shape[2]
            bias = alibi(heads, heads, 0, size, size, 8, q.device, q.dtype)
            attn_mask = bias if attn_mask is None else attn_mask + bias
        return attention(q, k, v, attn_mask, causal, self.dropout if self.training else 0.0, self.scale)


class FlashGroupedQueryAttention(nn.Module):
    """`q` has h heads, `kv` is one tensor with 2·g heads or two tensors; the result is [b, h, s, d]."""

    def __init__(self, attention_dropout_prob=0.0, scale=None):
        super().__init__()
        self.dropout, self.scale = attention_dropout_prob, scale

    def forward(self, q, kv, causal=False, cast_dtype=None, layout="b s h d"):
        (q,), (k, v) = unpack((q,), 1, layout, cast_dtype), unpack(kv, 2, layout, cast_dtype)
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
        return attention(q, k, v, None, causal, self.dropout if self.training else 0.0, self.scale)
