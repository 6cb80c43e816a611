"""Attention of one rank's heads: masks, rotary positions, ALiBi, dropout of its own; kernels are torch's.

Legend: B samples, H heads of this rank, S queries, T keys, D channels of a head.
"""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from trainyard_parallel.state import state


@contextmanager
def own_randomness(device):
    """Random numbers inside differ between the ranks of a tensor-parallel group, whatever their seeds.

    The seed is drawn from the ordinary CPU generator, so it is replayed where that one is (activation checkpointing),
    and ranks that are equal outside stay equal outside.
    """
    if state.cfg is None or state.size("tp") == 1 or device.type == "meta":
        yield
        return
    seed = int(torch.randint(2**62, ())) + state.rank("tp")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def rotary(x_BHSD, dim, base=10000.0, interleaved=False):
    """Turns the first `dim` channels by their position; pairs are neighbours (GPT-J) or halves (GPT-NeoX).

    Angles are float32, as the models compute them that this must equal.
    """
    size, device = x_BHSD.shape[-2], x_BHSD.device
    frequency = 1.0 / (base ** (torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim))
    angle = torch.arange(size, dtype=torch.float32, device=device)[:, None] * frequency
    cos, sin = angle.cos().to(x_BHSD.dtype), angle.sin().to(x_BHSD.dtype)
    turned, kept = x_BHSD[..., :dim], x_BHSD[..., dim:]
    first, second = (turned[..., ::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    pair = (first * cos - second * sin, second * cos + first * sin)
    turned = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    return torch.cat([turned, kept], -1)


def alibi(heads, all_heads, first, size, keys, bias_max, device, dtype):
    """[1, heads, S, T] linear penalties of distance; slopes 2^(-bias_max·i/n) for head i of n, from 1.

    Press and others, https://arxiv.org/abs/2108.12409.
    """
    numbers = torch.arange(first + 1, first + heads + 1, device=device, dtype=dtype)
    slopes = 2.0 ** (-bias_max * numbers / all_heads)
    distance = torch.arange(keys, device=device) - torch.arange(keys - size, keys, device=device)[:, None]
    return -slopes[:, None, None] * distance.abs().to(dtype)


def attention(q_BHSD, k_BHTD, v_BHTD, bias=None, causal=False, dropout=0.0, scale=None, window=None):
    """softmax(q·k·scale + bias)·v; `bias` broadcasts to [B, H, S, T]; scale is 1/√D unless given.

    With `causal` a query sees keys up to its own position (the last query is the last key's), with `window` only the
    last `window` of them. Rows that see nothing see everything, as with large negative biases.
    """
    size, keys = q_BHSD.shape[-2], k_BHTD.shape[-2]
    if bias is not None:
        bias = bias.to(q_BHSD.dtype)
    if causal and (bias is not None or window is not None or size != keys):
        own = torch.arange(keys - size, keys, device=q_BHSD.device)[:, None]
        other = torch.arange(keys, device=q_BHSD.device)
        hidden = other > own
        if window is not None:
            hidden = hidden | (other <= own - window)
        bias = torch.zeros((), dtype=q_BHSD.dtype, device=q_BHSD.device) if bias is None else bias
        bias = bias.expand(*bias.shape[:-2], size, keys) if bias.dim() >= 2 else bias.expand(size, keys)
        bias = bias.masked_fill(hidden, torch.finfo(q_BHSD.dtype).min)
        causal = False
    return F.scaled_dot_product_attention(q_BHSD, k_BHTD, v_BHTD, bias, dropout, causal, scale=scale)


class FlashAttentionLayer(nn.Module):
    """Self-attention on packed `qkv [B, S, 3, H, D]`; returns [B, H, S, D]. torch chooses the kernel.

    `attn_mask` is additive and broadcasts to [B, H, S, S]. Scores are scaled by `scale`, or by 1/√D
    (`scale_attention_scores`) and 1/(layer_idx + 1) (`scale_attn_by_layer_idx`). `triton_flash_attention` has no effect.
    """

    def __init__(
        self,
        attention_dropout_prob=0.1,
        attention_head_size=None,
        scale_attention_scores=True,
        scale_attn_by_layer_idx=False,
        layer_idx=None,
        scale=None,
        triton_flash_attention=False,
        use_alibi=False,
    ):
        super().__init__()
        self.dropout, self.head_size, self.given_scale = attention_dropout_prob, attention_head_size, scale
        self.scale_scores, self.by_layer, self.layer_idx = scale_attention_scores, scale_attn_by_layer_idx, layer_idx
        self.use_alibi = use_alibi

    def forward(self, qkv, attn_mask=None, causal=False):
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        scale = self.given_scale
        if scale is None:
            scale = score_scale(self.head_size or q.shape[-1], self.scale_scores, self.by_layer, self.layer_idx)
        if self.use_alibi:
            heads, size = q.shape[1], q.shape[2]
            bias = alibi(heads, heads, 0, size, size, 8, q.device, q.dtype)
            attn_mask = bias if attn_mask is None else attn_mask + bias
        return attention(q, k, v, attn_mask, causal, self.dropout if self.training else 0.0, scale)


def score_scale(head_size, scaled=True, by_layer=False, layer_idx=None):
    scale = head_size**-0.5 if scaled else 1.0
    return scale / (layer_idx + 1) if by_layer and layer_idx is not None else scale
