"""A small GPT whose blocks carry the names of `smp.nn.DistributedTransformerLayer`, so that weights move between both."""

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.dense = (nn.Linear(width, width) for _ in range(4))
        self.pre_layernorm = nn.LayerNorm(width)

    def forward(self, x_BSH):
        h_BSH = self.pre_layernorm(x_BSH)
        # The head's size is kept, their number may be split over ranks.
        size = x_BSH.shape[-1] // self.heads
        q, k, v = (f(h_BSH).unflatten(-1, (-1, size)).transpose(1, 2) for f in (self.query, self.key, self.value))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x_BSH + self.dense(out.transpose(1, 2).flatten(2))


class Output(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.dense1, self.dense2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.pre_layernorm = nn.LayerNorm(width)

    def forward(self, x):
        return x + self.dense2(F.gelu(self.dense1(self.pre_layernorm(x))))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.attention, self.output = Attention(width, heads), Output(width)

    def forward(self, x):
        return self.output(self.attention(x))


class GPT(nn.Module):
    """Logits of `ids` [B, S], or with `labels` their mean loss."""

    def __init__(self, vocabulary, width, heads, layers, sequence):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(sequence, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids, labels=None):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.ln(x))
        return logits if labels is None else token_loss(logits, labels)


class Stage(nn.Module):
    """What one rank of a pipeline cut by hand runs: blocks `first` to `last` of a GPT."""

    def __init__(self, gpt, first, last):
        super().__init__()
        layers = len(gpt.blocks)
        self.wte, self.wpe = (gpt.wte, gpt.wpe) if first == 0 else (None, None)
        self.blocks = nn.ModuleList(gpt.blocks[first:last])
        self.ln, self.head = (gpt.ln, gpt.head) if last == layers else (None, None)

    def forward(self, x):
        if self.wte is not None:
            x = self.wte(x) + self.wpe(torch.arange(x.shape[1], device=x.device))
        for block in self.blocks:
            x = block(x)
        return x if self.head is None else self.head(self.ln(x))


def token_loss(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def batch_of(shape, rows, step):
    """Deterministic ids and labels of `rows` samples."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(shape["vocabulary"], (rows, shape["sequence"] + 1), generator=generator)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
