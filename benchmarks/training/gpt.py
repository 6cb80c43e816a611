"""A small GPT over bytes, in plain torch."""

from torch import nn
from torch.nn import functional as F

VOCABULARY = 256


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x_BLD):
        B, L, D = x_BLD.shape
        q, k, v = (
            part.view(B, L, self.heads, D // self.heads).transpose(1, 2)
            for part in self.qkv(self.norm_1(x_BLD)).split(D, dim=2)
        )
        mixed_BLD = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, L, D)
        x_BLD = x_BLD + self.out(mixed_BLD)
        return x_BLD + self.down(F.gelu(self.up(self.norm_2(x_BLD))))


class Gpt(nn.Module):
    def __init__(self, layers, width, heads, length):
        super().__init__()
        self.token, self.position = nn.Embedding(VOCABULARY, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, tokens_BL):
        """The mean loss of predicting each byte from those before it."""
        x_BLD = self.token(tokens_BL[:, :-1]) + self.position.weight[: tokens_BL.shape[1] - 1]
        for block in self.blocks:
            x_BLD = block(x_BLD)
        return F.cross_entropy(self.head(self.norm(x_BLD)).flatten(0, 1), tokens_BL[:, 1:].flatten())
